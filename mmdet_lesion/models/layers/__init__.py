"""Layers."""

from .a3d_conv import A3DConv
from .align_shift_conv import AlignShiftConv
from .depth_reduction import DepthReduction
from .slice_conv import SliceConv
from .slice_fusion import SliceFusion
from .sparse_roi_align import sparse_roi_align

__all__ = [
    "A3DConv",
    "AlignShiftConv",
    "DepthReduction",
    "SliceConv",
    "SliceFusion",
    "sparse_roi_align",
]
