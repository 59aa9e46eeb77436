"""RoI heads."""

from .mask_trained_roi_head import MaskTrainedRoIHead

__all__ = ["MaskTrainedRoIHead"]
