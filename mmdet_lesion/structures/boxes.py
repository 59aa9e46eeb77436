"""3D boxes: volume, overlap and non-maximum suppression.

Boxes are ``(x1, y1, z1, x2, y2, z2)`` in voxels, continuous and half-open: voxel ``i`` covers
``[i, i + 1)``. Arrays are ``(D, H, W)``, that is ``(z, y, x)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["batched_nms3d", "box_iou3d", "box_volume3d", "nms3d"]

# Boxes settled at a time, and overlaps held at a time: few enough for a processor's cache, where
# the time goes into memory, and enough to fill a GPU.
_BLOCK = 256
_MAX_OVERLAPS = {"cpu": 1 << 17, "cuda": 1 << 24}


def _checked(boxes: Tensor) -> Tensor:
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"boxes have the shape {tuple(boxes.shape)}; expected (N, 6)")
    # Volumes of half-precision boxes overflow; whole numbers divide badly.
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_volume3d(boxes: Tensor) -> Tensor:
    """Volume of each box, 0 where an edge is not positive.

    Args:
        boxes: ``(N, 6)``.

    Returns:
        ``(N,)`` cubic voxels.
    """
    boxes = _checked(boxes)
    return (boxes[:, 3:] - boxes[:, :3]).clamp(min=0).prod(dim=1)


def box_iou3d(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Intersection over union of every pair.

    Args:
        boxes1: ``(N, 6)``.
        boxes2: ``(M, 6)``.

    Returns:
        ``(N, M)`` in 0..1, float32 (float64 for float64 boxes); 0 for two boxes without volume.

    Raises:
        ValueError: The boxes do not have six columns.
    """
    boxes1, boxes2 = _checked(boxes1), _checked(boxes2)
    inter = _edge_overlap(boxes1, boxes2, 0)
    for axis in (1, 2):
        inter.mul_(_edge_overlap(boxes1, boxes2, axis))
    union = box_volume3d(boxes1)[:, None] + box_volume3d(boxes2)[None] - inter
    return inter / union.clamp_(min=torch.finfo(union.dtype).tiny)


def _edge_overlap(boxes1: Tensor, boxes2: Tensor, axis: int) -> Tensor:
    # One axis after the other keeps the peak at a few (N, M) matrices.
    high = torch.minimum(boxes1[:, None, axis + 3], boxes2[None, :, axis + 3])
    return high.sub_(torch.maximum(boxes1[:, None, axis], boxes2[None, :, axis])).clamp_(min=0)


def nms3d(boxes: Tensor, scores: Tensor, iou_thr: float) -> Tensor:
    """Greedy non-maximum suppression: a box goes where a kept, higher one overlaps it by more.

    Args:
        boxes: ``(N, 6)``.
        scores: ``(N,)``; of equal scores the earlier box counts as the higher one.
        iou_thr: Boxes with a larger IoU than this with a kept one are dropped.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: Boxes and scores do not fit together.
    """
    return batched_nms3d(boxes, scores, None, iou_thr)


def batched_nms3d(boxes: Tensor, scores: Tensor, groups: Tensor | None, iou_thr: float) -> Tensor:
    """:func:`nms3d` where only boxes of one group (scan, class) suppress each other.

    Boxes are settled in blocks of falling score. Memory is bounded, whatever the number of
    boxes.

    Args:
        boxes: ``(N, 6)``.
        scores: ``(N,)``.
        groups: ``(N,)`` integers, or None for one group.
        iou_thr: See :func:`nms3d`.

    Returns:
        ``(K,)`` int64 indices of the kept boxes, highest score first.

    Raises:
        ValueError: Boxes, scores and groups do not fit together.
    """
    boxes = _checked(boxes)
    if scores.shape != boxes.shape[:1] or (groups is not None and groups.shape != scores.shape):
        raise ValueError(
            f"boxes {tuple(boxes.shape)} come with scores {tuple(scores.shape)} and groups "
            f"{None if groups is None else tuple(groups.shape)}; expected one of each per box"
        )
    left = torch.argsort(scores, descending=True, stable=True)
    kept = [left[:0]]
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        block = block[_settle(_overlapping(boxes, groups, block, block, iou_thr))]
        kept.append(block)
        most = _MAX_OVERLAPS["cuda" if boxes.is_cuda else "cpu"]
        step = max(1, most // max(1, len(block)))
        alive = [
            ~_overlapping(boxes, groups, part, block, iou_thr).any(dim=1)
            for part in left.split(step)
        ]
        if len(left):
            left = left[torch.cat(alive)]
    return torch.cat(kept)


def _overlapping(
    boxes: Tensor, groups: Tensor | None, rows: Tensor, columns: Tensor, iou_thr: float
) -> Tensor:
    over = box_iou3d(boxes[rows], boxes[columns]) > iou_thr
    if groups is not None:
        over &= groups[rows][:, None] == groups[columns][None]
    return over


def _settle(over: Tensor) -> Tensor:
    """Greedy choice in a block sorted by score, from who overlaps whom, ``(B, B)`` bool.

    A box stays unless an earlier one that stays overlaps it. Repeating that for all boxes at once
    settles at least one more box a round, so the fixed point is the greedy choice.
    """
    over = over.tril(diagonal=-1)
    keep = torch.ones(len(over), dtype=torch.bool, device=over.device)
    while True:
        settled = ~(over & keep).any(dim=1)
        if torch.equal(settled, keep):
            return keep
        keep = settled
