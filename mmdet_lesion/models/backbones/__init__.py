"""Backbones for slice stacks and volumes."""

from .resnet3d import ResNet3D
from .slice_densenet import SliceDenseNet
from .slice_efficientnet import SliceEfficientNet
from .slice_mixing_densenet import SliceMixingDenseNet
from .slice_resnet import SliceResNet

__all__ = [
    "ResNet3D",
    "SliceDenseNet",
    "SliceEfficientNet",
    "SliceMixingDenseNet",
    "SliceResNet",
]
