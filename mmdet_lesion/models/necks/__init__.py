"""Necks: from a backbone's maps to those that detection runs on."""

from .top_down_pathway import TopDownPathway

__all__ = ["TopDownPathway"]
