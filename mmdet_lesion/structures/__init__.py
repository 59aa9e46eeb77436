"""Volumes, the grids that they live on, and tracklets of boxes through their slices."""

from .grid import Grid, resampled_shape
from .tracklets import Tracklets
from .volume import Volume

__all__ = ["Grid", "Tracklets", "Volume", "resampled_shape"]
