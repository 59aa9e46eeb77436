"""mmdet's assigner, with ignored regions that also count where an image has no lesion."""

from typing import Any, Optional

from mmdet.models.task_modules.assigners import AssignResult, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData


@TASK_UTILS.register_module()
class IgnoreAwareMaxIoUAssigner(MaxIoUAssigner):
    """A ``MaxIoUAssigner`` that ignores on images without ground truth, too.

    mmdet's marks ignored priors in the table of overlaps with the ground truth, which has no row
    when there is none, and makes every prior of such an image a negative.
    """

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: Optional[InstanceData] = None,
        **kwargs: Any,
    ) -> AssignResult:
        """Assign as the parent does; priors (N, 4) inside ignored boxes are -1 in any case."""
        result = super().assign(pred_instances, gt_instances, gt_instances_ignore, **kwargs)
        if (
            len(gt_instances) == 0
            and self.ignore_iof_thr > 0
            and gt_instances_ignore is not None
            and len(gt_instances_ignore)
            and len(pred_instances)
        ):
            priors, ignored = pred_instances.priors, gt_instances_ignore.bboxes
            if self.ignore_wrt_candidates:
                inside = self.iou_calculator(priors, ignored, mode="iof").max(dim=1)
            else:
                inside = self.iou_calculator(ignored, priors, mode="iof").max(dim=0)
            result.gt_inds[inside.values > self.ignore_iof_thr] = -1
        return result
