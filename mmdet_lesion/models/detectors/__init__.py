"""Detectors."""

from .focalmix import FocalMix
from .slice_faster_rcnn import SliceFasterRCNN
from .volume_detector import VolumeDetector

__all__ = ["FocalMix", "SliceFasterRCNN", "VolumeDetector"]
