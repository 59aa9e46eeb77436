"""Published protocols as functions, and the metrics that call them in training and testing."""

import lazy_loader

# The functions need numpy alone, the metrics mmengine and mmdet.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["functional"], {"metrics": ["LesionFROCMetric", "Luna16Metric"]}
)
