"""Task modules: anchors, IoU calculator, box coder, assigner, sampler, linker, NMS and fusion."""

from .anchor_generator3d import AnchorGenerator3D
from .bbox_overlaps3d import BboxOverlaps3D
from .delta_xyzwhd_bbox_coder import DeltaXYZWHDBBoxCoder
from .hard_negative_sampler import HardNegativeSampler
from .ignore_aware_max_iou_assigner import IgnoreAwareMaxIoUAssigner
from .nms3d import NMS3D
from .slice_linker import SliceLinker
from .weighted_box_fusion import WeightedBoxFusion

__all__ = [
    "AnchorGenerator3D",
    "BboxOverlaps3D",
    "DeltaXYZWHDBBoxCoder",
    "HardNegativeSampler",
    "IgnoreAwareMaxIoUAssigner",
    "NMS3D",
    "SliceLinker",
    "WeightedBoxFusion",
]
