"""Networks, and the parts that they are built from."""

from . import task_modules
from .backbones import DenseNet3D, DenseNet121
from .dense_heads import NegativeMaskRPNHead
from .detectors import SliceFasterRCNN
from .layers import A3DConv, AlignShiftConv, SliceFusion
from .losses import MaskDiceLoss
from .necks import TopDownPathway
from .roi_heads import MaskTrainedRoIHead

__all__ = [
    "A3DConv",
    "AlignShiftConv",
    "DenseNet121",
    "DenseNet3D",
    "MaskDiceLoss",
    "MaskTrainedRoIHead",
    "NegativeMaskRPNHead",
    "SliceFasterRCNN",
    "SliceFusion",
    "TopDownPathway",
    "task_modules",
]
