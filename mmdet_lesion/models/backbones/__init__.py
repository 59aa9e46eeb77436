"""Backbones that read stacks of CT slices, and volumes."""

from .densenet import DenseNet121
from .resnet3d import ResNet3D

__all__ = ["DenseNet121", "ResNet3D"]
