"""Non-maximum suppression of 3D boxes, as configs name it."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError
from ...structures import batched_nms3d

__all__ = ["NMS3D"]


@TASK_UTILS.register_module(name="nms3d")
class NMS3D:
    """Greedy non-maximum suppression of 3D boxes by IoU and containment.

    In configs: ``nms=dict(type='nms3d', iou_threshold=0.3, containment_threshold=0.7)``. A box is
    dropped if its overlap with a kept box of a higher score exceeds a threshold. Of equal scores,
    the box that comes first ranks higher. Both overlaps are ratios of volumes, so boxes in voxels
    of one scan give the same result as boxes in millimeters.

    Args:
        iou_threshold: Largest IoU of two kept boxes.
        containment_threshold: Largest fraction of the smaller of two kept boxes that is inside the
            other; None for no limit. Unlike the IoU, it finds small boxes within large ones.

    Raises:
        InputError: A threshold is not within 0 to 1.
    """

    def __init__(self, iou_threshold: float, containment_threshold: float | None = None) -> None:
        for name, value in (
            ("iou_threshold", iou_threshold),
            ("containment_threshold", containment_threshold),
        ):
            optional = name == "containment_threshold" and value is None
            if not optional and not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise InputError(f"nms3d: {name}={value!r}; expected a number from 0 to 1")
        self.iou_threshold = iou_threshold
        self.containment_threshold = containment_threshold

    def __call__(self, bboxes: Tensor, scores: Tensor, labels: Tensor | None = None) -> Tensor:
        """Select the boxes to keep.

        Args:
            bboxes: Boxes ``x1, y1, z1, x2, y2, z2``, shape (N, 6).
            scores: Scores, shape (N,).
            labels: Class of each box, shape (N,); boxes of different classes do not suppress each
                other. None for one class.

        Returns:
            Indices of the kept boxes by descending score, shape (K,), int64.
        """
        return batched_nms3d(bboxes, scores, labels, self.iou_threshold, self.containment_threshold)
