"""Dense heads."""

from .focalmix_head import AnchorTargets, FocalMixHead
from .negative_mask_rpn_head import NegativeMaskRPNHead

__all__ = ["AnchorTargets", "FocalMixHead", "NegativeMaskRPNHead"]
