"""Heads that predict at every location."""

from .focalmix_head import AnchorTargets, FocalMixHead

__all__ = ["AnchorTargets", "FocalMixHead"]
