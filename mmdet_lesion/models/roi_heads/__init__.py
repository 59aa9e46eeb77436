"""RoI heads."""

from .mask_trained_roi_head import MaskTrainedRoIHead
from .sparse_roi_extractor import SparseRoIExtractor

__all__ = ["MaskTrainedRoIHead", "SparseRoIExtractor"]
