"""Masks that train the features, boxes that are the result."""

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor


@MODELS.register_module()
class MaskTrainedRoIHead(StandardRoIHead):
    """Mask R-CNN's ``StandardRoIHead`` that predicts boxes alone.

    Masks of all boxes of a volume would take gigabytes, and pseudo-masks are no truth to compare
    them with; the mask branch is there for what it teaches the features.
    """

    def predict(
        self,
        x: tuple[Tensor],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Predict boxes, as ``StandardRoIHead`` without a mask branch does."""
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_bbox(x, metas, rpn_results_list, self.test_cfg, rescale=rescale)
