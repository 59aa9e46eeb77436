"""Heads that score dense anchors."""

from .negative_mask_rpn_head import NegativeMaskRPNHead

__all__ = ["NegativeMaskRPNHead"]
