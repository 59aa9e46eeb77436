"""Losses."""

from .mask_dice_loss import MaskDiceLoss
from .soft_focal_loss import SoftFocalLoss, soft_focal_loss

__all__ = ["MaskDiceLoss", "SoftFocalLoss", "soft_focal_loss"]
