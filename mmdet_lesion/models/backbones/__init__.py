"""Backbones that read stacks of CT slices."""

from .densenet import DenseNet121
from .densenet3d import DenseNet3D

__all__ = ["DenseNet121", "DenseNet3D"]
