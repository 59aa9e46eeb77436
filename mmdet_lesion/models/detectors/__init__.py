"""Detectors."""

from .coarse_to_fine import CoarseToFineDetector
from .focalmix import FocalMix
from .slice_faster_rcnn import SliceFasterRCNN
from .volume_detector import VolumeDetector

__all__ = ["CoarseToFineDetector", "FocalMix", "SliceFasterRCNN", "VolumeDetector"]
