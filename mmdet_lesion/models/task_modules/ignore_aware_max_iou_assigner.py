"""mmdet's IoU assigner with ignored regions that take no positive away."""

from typing import Any, Optional

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """A ``MaxIoUAssigner`` that assigns positives first and ignores only would-be negatives.

    ``MaxIoUAssigner`` marks the priors in ignored regions before it assigns positives, so that an
    ignored region that overlaps a labeled lesion takes the lesion's positives. It also ignores
    nothing in an image without ground truth. Here the ignored regions change neither.

    Arguments are those of ``MaxIoUAssigner``; ``ignore_iof_thr`` > 0 switches ignoring on.
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
            pred_instances: ``priors`` (N, 4).
            gt_instances: ``bboxes`` (M, 4) and ``labels`` (M,).
            gt_instances_ignore: ``bboxes`` (K, 4). Negatives of which more than
                ``ignore_iof_thr`` lies in one of them become -1.
            **kwargs: As of ``MaxIoUAssigner``.

        Returns:
            ``gt_inds`` (N,): -1 unused, 0 negative, i + 1 positive for box i.
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
