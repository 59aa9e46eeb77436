"""Detectors."""

from .focalmix import FocalMix
from .slice_faster_rcnn import SliceFasterRCNN

__all__ = ["FocalMix", "SliceFasterRCNN"]
