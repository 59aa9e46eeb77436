"""Detectors."""

from .slice_faster_rcnn import SliceFasterRCNN

__all__ = ["SliceFasterRCNN"]
