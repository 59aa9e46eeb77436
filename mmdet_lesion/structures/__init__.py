"""Volumes, the grids that they live on, boxes in them, and tracklets of boxes through slices."""

from .axis_aligned import is_axis_aligned, to_axis_aligned
from .boxes3d import CUBE_SYMMETRIES, CubeSymmetry, batched_nms3d, box_iou3d, nms3d
from .frame import Frame
from .grid import Grid, resampled_shape
from .orientation import Orientation
from .tracklets import Tracklets
from .volume import Volume

__all__ = [
    "CUBE_SYMMETRIES",
    "CubeSymmetry",
    "Frame",
    "Grid",
    "Orientation",
    "Tracklets",
    "Volume",
    "batched_nms3d",
    "box_iou3d",
    "is_axis_aligned",
    "nms3d",
    "resampled_shape",
    "to_axis_aligned",
]
