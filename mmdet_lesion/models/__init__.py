"""Networks, and the parts that they are built from."""

from . import task_modules
from .backbones import DenseNet121, ResNet3D
from .data_preprocessors import VolumeDataPreprocessor
from .dense_heads import FocalMixHead
from .detectors import FocalMix, SliceFasterRCNN
from .layers import SliceFusion
from .losses import SoftFocalLoss
from .necks import FPN3D, TopDownPathway

__all__ = [
    "DenseNet121",
    "FPN3D",
    "FocalMix",
    "FocalMixHead",
    "ResNet3D",
    "SliceFasterRCNN",
    "SliceFusion",
    "SoftFocalLoss",
    "TopDownPathway",
    "VolumeDataPreprocessor",
    "task_modules",
]
