"""Task modules: anchor generator, IoU calculator, box coder, assigner and linker."""

from .anchor_generator3d import AnchorGenerator3D
from .bbox_overlaps3d import BboxOverlaps3D
from .delta_xyzwhd_bbox_coder import DeltaXYZWHDBBoxCoder
from .ignore_aware_max_iou_assigner import IgnoreAwareMaxIoUAssigner
from .slice_linker import SliceLinker

__all__ = [
    "AnchorGenerator3D",
    "BboxOverlaps3D",
    "DeltaXYZWHDBBoxCoder",
    "IgnoreAwareMaxIoUAssigner",
    "SliceLinker",
]
