"""Box coder for boxes in volumes."""

import math
from typing import Sequence

import torch
from mmdet.models.task_modules.coders import BaseBBoxCoder
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ...errors import InputError

# As in mmdet, a decoded edge is at most 1000 / 16 times that of its anchor.
_MAX_LOG_RATIO = math.log(1000 / 16)


@TASK_UTILS.register_module()
class DeltaXYZWHDBBoxCoder(BaseBBoxCoder):
    """``DeltaXYWHBBoxCoder`` with a third axis.

    A box with center c and edges e is encoded relative to an anchor with center a and edges s as
    ``((c - a) / s, log(e / s))``, in the order x, y, z, w, h, d, and then normalized.

    Args:
        target_means: Means of the six offsets, which are subtracted.
        target_stds: Standard deviations of the six offsets, by which they are divided.

    Source: R-CNN (Girshick et al., 2014), appendix C.
    """

    encode_size = 6

    def __init__(
        self,
        target_means: Sequence[float] = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0),
        target_stds: Sequence[float] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if len(target_means) != 6 or len(target_stds) != 6:
            raise InputError(
                f"DeltaXYZWHDBBoxCoder: {len(target_means)} means and {len(target_stds)} standard "
                "deviations; expected 6 of each"
            )
        self.means = tuple(target_means)
        self.stds = tuple(target_stds)

    def encode(self, bboxes: Tensor, gt_bboxes: Tensor) -> Tensor:
        """Encode boxes as offsets from anchors.

        Args:
            bboxes: Anchors, shape (N, 6).
            gt_bboxes: Boxes with positive edges, shape (N, 6).

        Returns:
            Offsets, shape (N, 6).
        """
        centers, edges = _centers_and_edges(bboxes)
        gt_centers, gt_edges = _centers_and_edges(gt_bboxes)
        deltas = torch.cat(((gt_centers - centers) / edges, (gt_edges / edges).log()), dim=-1)
        return (deltas - deltas.new_tensor(self.means)) / deltas.new_tensor(self.stds)

    def decode(self, bboxes: Tensor, pred_bboxes: Tensor) -> Tensor:
        """Decode offsets from anchors, the inverse of :meth:`encode`.

        Args:
            bboxes: Anchors, shape (N, 6).
            pred_bboxes: Offsets, shape (N, 6).

        Returns:
            Boxes, shape (N, 6).
        """
        deltas = pred_bboxes * pred_bboxes.new_tensor(self.stds) + pred_bboxes.new_tensor(
            self.means
        )
        centers, edges = _centers_and_edges(bboxes)
        centers = centers + deltas[..., :3] * edges
        half = edges * deltas[..., 3:].clamp(-_MAX_LOG_RATIO, _MAX_LOG_RATIO).exp() / 2
        return torch.cat((centers - half, centers + half), dim=-1)


def _centers_and_edges(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :3], boxes[..., 3:]
    return (low + high) / 2, high - low
