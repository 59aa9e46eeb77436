"""IoU assigner whose ignored regions only affect negatives."""

from typing import Any, Optional

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` that ignores only priors that would otherwise be negatives.

    ``MaxIoUAssigner`` ignores priors before it assigns positives, so an ignored region that
    overlaps an annotated lesion removes positives of the lesion. It also ignores nothing in an
    image without ground truth. This assigner assigns positives first and always ignores.

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
            gt_instances_ignore: Ignored regions, with ``bboxes`` (K, 4). A negative is
                ignored if a region covers more than ``ignore_iof_thr`` of the prior's area.
            **kwargs: As for ``MaxIoUAssigner``.

        Returns:
            Result with ``gt_inds`` (N,): -1 for ignored priors, 0 for negatives, i + 1 for
            positives of box i.
        """
        result = super().assign(pred_instances, gt_instances, None, **kwargs)
        if (
            self.ignore_iof_thr <= 0
            or gt_instances_ignore is None
            or not len(gt_instances_ignore)
            or not len(pred_instances)
        ):
            return result
        priors, ignored = pred_instances.priors, gt_instances_ignore.bboxes
        if self.ignore_wrt_candidates:
            inside = self.iou_calculator(priors, ignored, mode="iof").max(dim=1).values
        else:
            inside = self.iou_calculator(ignored, priors, mode="iof").max(dim=0).values
        result.gt_inds[(result.gt_inds == 0) & (inside > self.ignore_iof_thr)] = -1
        return result
