"""Volumes, the grids that they live on, and tracklets of boxes through their slices."""

from .axis_aligned import axes_of_world, to_axis_aligned
from .frame import Frame
from .grid import Grid, resampled_shape
from .tracklets import Tracklets
from .volume import Volume

__all__ = [
    "Frame",
    "Grid",
    "Tracklets",
    "Volume",
    "axes_of_world",
    "resampled_shape",
    "to_axis_aligned",
]
