"""Detectors."""

from .coarse_to_fine import CoarseToFineDetector
from .focalmix import FocalMix
from .slice_faster_rcnn import SliceFasterRCNN
from .view import View
from .volume_detector import EnsembleMember, VolumeDetector

__all__ = [
    "CoarseToFineDetector",
    "EnsembleMember",
    "FocalMix",
    "SliceFasterRCNN",
    "View",
    "VolumeDetector",
]
