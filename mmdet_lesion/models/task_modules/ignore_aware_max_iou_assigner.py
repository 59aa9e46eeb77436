"""IoU assigner whose ignored regions only affect negatives."""

from typing import Any, Optional

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import Tensor

from .hard_negatives import HARD_NEGATIVE_IOU, split_hard_negatives


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that ignores only priors that would otherwise be negatives.

    ``MaxIoUAssigner`` ignores priors before it assigns positives, so an ignored region that
    overlaps an annotated lesion removes positives of the lesion. It also ignores nothing in an
    image without ground truth. This assigner assigns positives first and always ignores.

    Hard negatives, which are packed as ignored instances with the label -1, are not ignored. The
    largest IoU of each prior with one of them is stored for ``HardNegativeSampler``.

    Arguments are those of ``MaxIoUAssigner``; ``ignore_iof_thr`` > 0 enables ignoring.
    """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: Optional[InstanceData] = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign ground truth to priors.

        Args:
            pred_instances: Priors, with ``priors`` (N, 4).
            gt_instances: Ground truth, with ``bboxes`` (M, 4) and ``labels`` (M,).
            gt_instances_ignore: Ignored regions and hard negatives, with ``bboxes`` (K, 4) and
                ``labels`` (K,). A negative is ignored if a region covers more than
                ``ignore_iof_thr`` of the prior's area.
            **kwargs: As for ``MaxIoUAssigner``.

        Returns:
            Result with ``gt_inds`` (N,): -1 for ignored priors, 0 for negatives, i + 1 for
            positives of box i. Its extra property ``hard_negative_iou`` (N,) is the largest IoU
            of each prior with a hard negative, or None without hard negatives.
        """
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        priors = pred_instances.priors
        ignored, hard_negatives = split_hard_negatives(gt_instances_ignore)
        result.set_extra_property(HARD_NEGATIVE_IOU, self._largest_iou(priors, hard_negatives))
        if self.ignore_iof_thr <= 0 or not len(ignored) or not len(priors):
            return result
        if self.ignore_wrt_candidates:
            inside = self.iou_calculator(priors, ignored, mode="iof").max(dim=1).values
        else:
            inside = self.iou_calculator(ignored, priors, mode="iof").max(dim=0).values
        result.gt_inds[(result.gt_inds == 0) & (inside > self.ignore_iof_thr)] = -1
        return result

    def _largest_iou(self, priors: Tensor, hard_negatives: Tensor) -> Optional[Tensor]:
        if not len(hard_negatives) or not len(priors):
            return None
        return self.iou_calculator(priors, hard_negatives).max(dim=1).values
