"""Necks."""

from .fpn3d import FPN3D
from .top_down_pathway import TopDownPathway

__all__ = ["FPN3D", "TopDownPathway"]
