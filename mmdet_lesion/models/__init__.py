"""Networks, and the parts that they are built from."""

from . import task_modules
from .backbones import DenseNet121
from .detectors import SliceFasterRCNN
from .layers import SliceFusion
from .necks import TopDownPathway

__all__ = ["DenseNet121", "SliceFasterRCNN", "SliceFusion", "TopDownPathway", "task_modules"]
