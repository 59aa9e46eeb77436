"""Backbones that read stacks of CT slices."""

from .densenet import DenseNet121

__all__ = ["DenseNet121"]
