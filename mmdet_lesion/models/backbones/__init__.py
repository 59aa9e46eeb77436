"""Backbones for slice stacks and volumes."""

from .resnet3d import ResNet3D
from .slice_densenet import SliceDenseNet
from .slice_mixing_densenet import SliceMixingDenseNet

__all__ = ["SliceDenseNet", "SliceMixingDenseNet", "ResNet3D"]
