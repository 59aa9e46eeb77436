"""Detectors and their components."""

from . import task_modules
from .backbones import (
    ResNet3D,
    SliceDenseNet,
    SliceEfficientNet,
    SliceMixingDenseNet,
    SliceResNet,
)
from .data_preprocessors import VolumeDataPreprocessor
from .dense_heads import FocalMixHead, NegativeMaskRPNHead
from .detectors import CoarseToFineDetector, FocalMix, SliceFasterRCNN, VolumeDetector
from .layers import A3DConv, AlignShiftConv, SliceFusion
from .losses import MaskDiceLoss, SoftFocalLoss
from .necks import FPN3D, TopDownPathway
from .roi_heads import MaskTrainedRoIHead, SparseRoIExtractor
from .semi_supervised import objectives

__all__ = [
    "A3DConv",
    "AlignShiftConv",
    "CoarseToFineDetector",
    "SliceDenseNet",
    "SliceEfficientNet",
    "SliceMixingDenseNet",
    "SliceResNet",
    "FPN3D",
    "FocalMix",
    "FocalMixHead",
    "MaskDiceLoss",
    "MaskTrainedRoIHead",
    "NegativeMaskRPNHead",
    "ResNet3D",
    "SliceFasterRCNN",
    "SliceFusion",
    "SoftFocalLoss",
    "SparseRoIExtractor",
    "TopDownPathway",
    "VolumeDataPreprocessor",
    "VolumeDetector",
    "objectives",
    "task_modules",
]
