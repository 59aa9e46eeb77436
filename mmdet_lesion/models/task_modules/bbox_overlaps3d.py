"""IoU calculator for boxes in volumes."""

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError
from ...structures import box_iou3d


@TASK_UTILS.register_module()
class BboxOverlaps3D:
    """IoU calculator for boxes in volumes, as assigners such as ``MaxIoUAssigner`` expect it."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou") -> Tensor:
        """Compute the IoU of every pair of boxes.

        Args:
            bboxes1: Boxes ``x1, y1, z1, x2, y2, z2``, shape (N, 6).
            bboxes2: Boxes, shape (M, 6).
            mode: Only ``'iou'`` is supported.

        Returns:
            IoUs, shape (N, M).

        Raises:
            InputError: The mode is not supported, or boxes do not have six columns.
        """
        if mode != "iou":
            raise InputError(f"BboxOverlaps3D: mode={mode!r}; expected 'iou'")
        return box_iou3d(bboxes1, bboxes2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
