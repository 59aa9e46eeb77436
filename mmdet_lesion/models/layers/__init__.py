"""Layers that several networks share."""

from .slice_fusion import SliceFusion

__all__ = ["SliceFusion"]
