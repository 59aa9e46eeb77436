"""Volume, overlap and non-maximum suppression of 3D boxes.

Boxes are ``(x1, y1, z1, x2, y2, z2)`` in voxels, continuous and half-open: voxel ``i`` covers
``[i, i + 1)``. Arrays are ``(D, H, W)``, that is ``(z, y, x)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["batched_nms3d", "box_containment3d", "box_iou3d", "box_volume3d", "nms3d"]

# Numbers of boxes and overlaps per step: small enough for a CPU's cache, large enough for a GPU.
_BLOCK = 256
_MAX_OVERLAPS = {"cpu": 1 << 17, "cuda": 1 << 24}


def _check_boxes(boxes: Tensor) -> Tensor:
    if boxes.ndim != 2 or boxes.shape[1] != 6:
        raise ValueError(f"boxes have the shape {tuple(boxes.shape)}; expected (N, 6)")
    # Volumes of half-precision boxes overflow, and integers cannot be divided in place.
    return boxes if boxes.dtype in (torch.float32, torch.float64) else boxes.float()


def box_volume3d(boxes: Tensor) -> Tensor:
    """Compute the volume of each box.

    Args:
        boxes: Boxes, shape (N, 6).

    Returns:
        Volumes in voxels, 0 for boxes with a non-positive edge, shape (N,).
    """
    boxes = _check_boxes(boxes)
    return (boxes[:, 3:] - boxes[:, :3]).clamp(min=0).prod(dim=1)


def box_iou3d(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute the intersection over union of each pair of boxes.

    Args:
        boxes1: Boxes, shape (N, 6).
        boxes2: Boxes, shape (M, 6).

    Returns:
        IoUs from 0 to 1, shape (N, M), float32 (float64 for float64 boxes). The IoU of two boxes
        without volume is 0.

    Raises:
        ValueError: The boxes do not have six columns.
    """
    boxes1, boxes2 = _check_boxes(boxes1), _check_boxes(boxes2)
    inter = _intersection(boxes1, boxes2)
    union = box_volume3d(boxes1)[:, None] + box_volume3d(boxes2)[None] - inter
    return inter / union.clamp_(min=torch.finfo(union.dtype).tiny)


def box_containment3d(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    """Compute the fraction of the smaller box that is inside the larger one, for each pair.

    Unlike the IoU, it is 1 for a small box anywhere within a large one.

    Args:
        boxes1: Boxes, shape (N, 6).
        boxes2: Boxes, shape (M, 6).

    Returns:
        Fractions from 0 to 1, shape (N, M), float32 (float64 for float64 boxes); 0 if a box has
        no volume.

    Raises:
        ValueError: The boxes do not have six columns.
    """
    boxes1, boxes2 = _check_boxes(boxes1), _check_boxes(boxes2)
    smaller = torch.minimum(box_volume3d(boxes1)[:, None], box_volume3d(boxes2)[None])
    return _intersection(boxes1, boxes2) / smaller.clamp_(min=torch.finfo(smaller.dtype).tiny)


def _intersection(boxes1: Tensor, boxes2: Tensor) -> Tensor:
    inter = _edge_overlap(boxes1, boxes2, 0)
    for axis in (1, 2):
        inter.mul_(_edge_overlap(boxes1, boxes2, axis))
    return inter


def _edge_overlap(boxes1: Tensor, boxes2: Tensor, axis: int) -> Tensor:
    # Separate axes limit the peak memory to a few (N, M) matrices.
    high = torch.minimum(boxes1[:, None, axis + 3], boxes2[None, :, axis + 3])
    return high.sub_(torch.maximum(boxes1[:, None, axis], boxes2[None, :, axis])).clamp_(min=0)


def nms3d(
    boxes: Tensor, scores: Tensor, iou_thr: float, containment_thr: float | None = None
) -> Tensor:
    """Apply greedy non-maximum suppression.

    Args:
        boxes: Boxes, shape (N, 6).
        scores: Scores, shape (N,). Of equal scores, the first one ranks highest.
        iou_thr: A box is dropped if its IoU with a kept box of a higher score exceeds this
            threshold.
        containment_thr: A box is also dropped if its :func:`box_containment3d` with a kept box of
            a higher score exceeds this threshold; None for the IoU alone.

    Returns:
        Indices of the kept boxes by descending score, shape (K,), int64.

    Raises:
        ValueError: The numbers of boxes and scores differ.
    """
    return batched_nms3d(boxes, scores, None, iou_thr, containment_thr)


def batched_nms3d(
    boxes: Tensor,
    scores: Tensor,
    groups: Tensor | None,
    iou_thr: float,
    containment_thr: float | None = None,
) -> Tensor:
    """Apply :func:`nms3d` to each group of boxes, such as a scan or class.

    Boxes are processed in blocks of descending score, so that the memory does not depend on the
    number of boxes.

    Args:
        boxes: Boxes, shape (N, 6).
        scores: Scores, shape (N,).
        groups: Group index of each box, shape (N,), or None for one group.
        iou_thr: See :func:`nms3d`.
        containment_thr: See :func:`nms3d`.

    Returns:
        Indices of the kept boxes by descending score, shape (K,), int64.

    Raises:
        ValueError: The numbers of boxes, scores and groups differ.
    """
    boxes = _check_boxes(boxes)
    if scores.shape != boxes.shape[:1] or (groups is not None and groups.shape != scores.shape):
        raise ValueError(
            f"boxes {tuple(boxes.shape)} come with scores {tuple(scores.shape)} and groups "
            f"{None if groups is None else tuple(groups.shape)}; expected one of each per box"
        )
    thresholds = (iou_thr, containment_thr)
    left = torch.argsort(scores, descending=True, stable=True)
    kept = [left[:0]]
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        block = block[_keep_greedily(_overlapping(boxes, groups, block, block, *thresholds))]
        kept.append(block)
        most = _MAX_OVERLAPS["cuda" if boxes.is_cuda else "cpu"]
        step = max(1, most // max(1, len(block)))
        alive = [
            ~_overlapping(boxes, groups, part, block, *thresholds).any(dim=1)
            for part in left.split(step)
        ]
        if len(left):
            left = left[torch.cat(alive)]
    return torch.cat(kept)


def _overlapping(
    boxes: Tensor,
    groups: Tensor | None,
    rows: Tensor,
    columns: Tensor,
    iou_thr: float,
    containment_thr: float | None,
) -> Tensor:
    over = box_iou3d(boxes[rows], boxes[columns]) > iou_thr
    if containment_thr is not None:
        over |= box_containment3d(boxes[rows], boxes[columns]) > containment_thr
    if groups is not None:
        over &= groups[rows][:, None] == groups[columns][None]
    return over


def _keep_greedily(over: Tensor) -> Tensor:
    """Select the boxes that greedy suppression keeps in a block.

    A box is kept unless an earlier kept box overlaps it. Each iteration of this rule for all boxes
    at once fixes at least one more box, so the fixed point is the greedy selection.

    Args:
        over: Whether two boxes, sorted by descending score, overlap, shape (B, B), bool.
    """
    over = over.tril(diagonal=-1)
    keep = torch.ones(len(over), dtype=torch.bool, device=over.device)
    while True:
        settled = ~(over & keep).any(dim=1)
        if torch.equal(settled, keep):
            return keep
        keep = settled
