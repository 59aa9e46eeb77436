"""Volumes, the grids that they live on, and tracklets of boxes through their slices."""

from .grid import Grid, resampled_shape
from .orientation import Orientation
from .tracklets import Tracklets
from .volume import Volume

__all__ = ["Grid", "Orientation", "Tracklets", "Volume", "resampled_shape"]
