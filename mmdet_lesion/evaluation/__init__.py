"""FROC evaluation: published protocols as functions, and metrics for training and testing."""

import lazy_loader

# The functions need only numpy, the metrics also mmengine and mmdet.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, ["functional"], {"metrics": ["LesionFROCMetric", "Luna16Metric"]}
)
