"""Losses."""

from .mask_dice_loss import MaskDiceLoss
from .soft_focal_loss import SoftFocalLoss, soft_focal_loss
from .switch_losses import executive_loss, paradoxical_loss

__all__ = [
    "MaskDiceLoss",
    "SoftFocalLoss",
    "executive_loss",
    "paradoxical_loss",
    "soft_focal_loss",
]
