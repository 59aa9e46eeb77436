"""Hard negatives among the ignored instances of an image."""

from __future__ import annotations

from typing import Optional

import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import HARD_NEGATIVE_LABEL

__all__ = ["HARD_NEGATIVE_IOU", "split_hard_negatives"]

# Extra property of an ``AssignResult``: the largest IoU of each prior with a hard negative, shape
# (N,); None in an image without hard negatives.
HARD_NEGATIVE_IOU = "hard_negative_iou"


def split_hard_negatives(ignored: Optional[InstanceData]) -> tuple[Tensor, Tensor]:
    """Split ignored instances into ignored regions and hard negatives.

    Args:
        ignored: ``ignored_instances`` of a data sample; hard negatives have the label -1.

    Returns:
        Boxes xyxy of the ignored regions, shape (K, 4), and of the hard negatives, shape (H, 4).
    """
    if ignored is None or not len(ignored):
        return torch.zeros(0, 4), torch.zeros(0, 4)
    bboxes = get_box_tensor(ignored.bboxes)
    if "labels" not in ignored:
        return bboxes, bboxes[:0]
    hard = ignored.labels == HARD_NEGATIVE_LABEL
    return bboxes[~hard], bboxes[hard]
