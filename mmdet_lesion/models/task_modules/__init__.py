"""Task modules: anchor generator, IoU calculator, box coder, assigner, sampler, linker and NMS."""

from .anchor_generator3d import AnchorGenerator3D
from .bbox_overlaps3d import BboxOverlaps3D
from .delta_xyzwhd_bbox_coder import DeltaXYZWHDBBoxCoder
from .hard_negative_sampler import HardNegativeSampler
from .ignore_aware_max_iou_assigner import IgnoreAwareMaxIoUAssigner
from .nms3d import NMS3D
from .slice_linker import SliceLinker

__all__ = [
    "AnchorGenerator3D",
    "BboxOverlaps3D",
    "DeltaXYZWHDBBoxCoder",
    "HardNegativeSampler",
    "IgnoreAwareMaxIoUAssigner",
    "NMS3D",
    "SliceLinker",
]
