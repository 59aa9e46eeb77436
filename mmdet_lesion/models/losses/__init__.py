"""Losses."""

from .soft_focal_loss import SoftFocalLoss, soft_focal_loss

__all__ = ["SoftFocalLoss", "soft_focal_loss"]
