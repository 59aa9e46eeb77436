"""Volumes, the grids that they live on, boxes in them, and tracklets of boxes through slices."""

from .boxes3d import CUBE_SYMMETRIES, CubeSymmetry, batched_nms3d, box_iou3d, nms3d
from .grid import Grid, resampled_shape
from .tracklets import Tracklets
from .volume import Volume

__all__ = [
    "CUBE_SYMMETRIES",
    "CubeSymmetry",
    "Grid",
    "Tracklets",
    "Volume",
    "batched_nms3d",
    "box_iou3d",
    "nms3d",
    "resampled_shape",
]
