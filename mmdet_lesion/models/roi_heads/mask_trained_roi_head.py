"""RoI head with a mask branch that is used in training only."""

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmdet.utils import InstanceList
from torch import Tensor


@MODELS.register_module()
class MaskTrainedRoIHead(StandardRoIHead):
    """Mask R-CNN's ``StandardRoIHead`` that predicts boxes only.

    The mask branch serves as an auxiliary training task. The masks of all boxes of a volume would
    take gigabytes, and there are only pseudo-masks to evaluate them against.
    """

    def predict(
        self,
        x: tuple[Tensor],
        rpn_results_list: InstanceList,
        batch_data_samples: SampleList,
        rescale: bool = False,
    ) -> InstanceList:
        """Predict boxes as ``StandardRoIHead`` without a mask branch does."""
        metas = [sample.metainfo for sample in batch_data_samples]
        return self.predict_bbox(x, metas, rpn_results_list, self.test_cfg, rescale=rescale)
