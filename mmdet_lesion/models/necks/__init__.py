"""Necks: from a backbone's maps to those that detection runs on."""

from .fpn3d import FPN3D
from .top_down_pathway import TopDownPathway

__all__ = ["FPN3D", "TopDownPathway"]
