"""Backbones that read stacks of CT slices, and volumes."""

from .densenet import DenseNet121
from .densenet3d import DenseNet3D
from .resnet3d import ResNet3D

__all__ = ["DenseNet121", "DenseNet3D", "ResNet3D"]
