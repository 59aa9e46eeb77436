"""The overlaps by which mmdet's assigners match boxes in volumes."""

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError
from ...structures import box_iou3d


@TASK_UTILS.register_module()
class BboxOverlaps3D:
    """IoU of boxes in volumes, an IoU calculator for ``MaxIoUAssigner`` and the like."""

    def __call__(self, bboxes1: Tensor, bboxes2: Tensor, mode: str = "iou") -> Tensor:
        """Overlap of every pair.

        Args:
            bboxes1: (N, 6) ``x1, y1, z1, x2, y2, z2``.
            bboxes2: (M, 6).
            mode: ``'iou'``; there is no other.

        Returns:
            (N, M) in 0..1.

        Raises:
            InputError: another mode, or boxes without six columns.
        """
        if mode != "iou":
            raise InputError(f"BboxOverlaps3D: mode={mode!r}, expected 'iou'")
        return box_iou3d(bboxes1, bboxes2)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
