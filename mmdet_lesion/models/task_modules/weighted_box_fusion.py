"""Weighted fusion of the boxes that several predictions have of the same scan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from ...errors import InputError

__all__ = ["WeightedBoxFusion", "fuse_boxes"]

#: Default IoU thresholds of boxes on slices and in volumes. Two equal boxes that are shifted along
#: each axis by less than 18 % of their edge exceed the first, by less than 22 % the second.
_IOU_THRESHOLDS = {4: 0.5, 6: 0.3}
_TINY = np.finfo(np.float64).tiny


@TASK_UTILS.register_module()
class WeightedBoxFusion:
    """Weighted box fusion of several predictions, on slices or in volumes.

    A prediction is what one model returns for one view of a scan. Boxes of the same class (and, on
    slices, the same slice) are taken in descending order of score. A box joins the cluster whose
    fused box has the highest IoU with it, if that exceeds ``iou_threshold`` and the cluster has no
    box of the same prediction yet; otherwise it starts a cluster.

    - The fused box is the mean of the boxes of the cluster, weighted by their scores.
    - The fused score is the sum of the scores of the cluster divided by the number of all
      predictions that were made. A box that only one of n predictions has keeps an n-th of its
      score; scores on which all agree stay as they are.

    In configs: ``inference = dict(fusion=dict(type='WeightedBoxFusion', iou_threshold=0.5))``.

    Args:
        iou_threshold: IoU of a box with a cluster's fused box above which it joins the cluster;
            None for 0.5 on slices and 0.3 in volumes.
        score_thr: Fused boxes with a lower score are dropped. All boxes of the predictions are
            fused, whatever their score.

    Raises:
        InputError: A threshold is not within 0 to 1.

    Source: Solovyev et al., "Weighted boxes fusion: Ensembling boxes from different object
    detection models" (2021), with scores divided by the number of predictions, and at most one
    box of each prediction in a cluster, so that lesions which overlap stay apart.
    """

    def __init__(self, iou_threshold: float | None = None, score_thr: float = 0.01) -> None:
        for name, value in (("iou_threshold", iou_threshold), ("score_thr", score_thr)):
            optional = name == "iou_threshold" and value is None
            if not optional and not (isinstance(value, (int, float)) and 0 <= value <= 1):
                raise InputError(
                    f"WeightedBoxFusion: {name}={value!r}; expected a number from 0 to 1"
                )
        self.iou_threshold = iou_threshold
        self.score_thr = score_thr

    def __call__(self, predictions: Sequence[InstanceData]) -> InstanceData:
        """Fuse the predictions of a scan.

        Args:
            predictions: One or more predictions, also those without boxes, on the CPU: ``bboxes``
                (n, 4) with ``slice_inds`` (n,), or ``bboxes`` (n, 6); ``scores`` (n,) and
                ``labels`` (n,).

        Returns:
            Instances of the same kind, by slice and descending score.
        """
        found = InstanceData.cat(list(predictions))
        boxes = found.bboxes.numpy()
        groups = [found.labels.numpy()]
        if "slice_inds" in found:
            groups.append(found.slice_inds.numpy())
        keys, group = np.unique(np.stack(groups, axis=1), axis=0, return_inverse=True)
        threshold = self.iou_threshold
        if threshold is None:
            threshold = _IOU_THRESHOLDS[boxes.shape[1]]
        fused, scores, group = fuse_boxes(
            boxes,
            found.scores.numpy(),
            np.repeat(np.arange(len(predictions)), [len(one) for one in predictions]),
            group.reshape(-1),
            len(predictions),
            threshold,
        )
        kept = scores >= self.score_thr
        keys, scores = keys[group[kept]], scores[kept]
        order = np.lexsort((-scores, keys[:, -1] if "slice_inds" in found else scores * 0))
        result = InstanceData(
            bboxes=torch.from_numpy(fused[kept][order]).to(found.bboxes.dtype),
            scores=torch.from_numpy(scores[order]).to(found.scores.dtype),
            labels=torch.from_numpy(keys[order, 0]),
        )
        if "slice_inds" in found:
            result.slice_inds = torch.from_numpy(keys[order, 1])
        return result


def fuse_boxes(
    boxes: np.ndarray,
    scores: np.ndarray,
    predictions: np.ndarray,
    groups: np.ndarray,
    num_predictions: int,
    iou_thr: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fuse boxes as :class:`WeightedBoxFusion` describes.

    The boxes of all groups with the same rank are assigned at once, so that the number of steps is
    that of the boxes in the largest group.

    Args:
        boxes: Half-open boxes with the lower ends of all axes before the upper ones, shape
            (N, 4) or (N, 6).
        scores: Scores, shape (N,).
        predictions: Index of the prediction that each box is from, shape (N,).
        groups: Index of the group of each box, shape (N,); boxes of different groups are not fused.
        num_predictions: Number of all predictions.
        iou_thr: IoU above which a box joins a cluster.

    Returns:
        Fused boxes (K, 4) or (K, 6), scores (K,) and groups (K,), by group, float64 and int64.
    """
    columns = boxes.shape[1]
    if not len(boxes):
        return np.empty((0, columns)), np.empty(0), np.empty(0, np.int64)
    order = np.lexsort((-scores, groups))
    boxes, scores = boxes[order].astype(np.float64), scores[order].astype(np.float64)
    predictions, groups = predictions[order], groups[order]
    counts = np.bincount(groups)
    ranks = np.arange(len(boxes)) - np.repeat(np.cumsum(counts) - counts, counts)
    shape = (len(counts), int(counts.max()))
    sums, weights, totals = np.zeros((*shape, columns)), np.zeros(shape), np.zeros(shape)
    joined = np.zeros((*shape, num_predictions), dtype=bool)
    used = np.zeros(len(counts), dtype=np.int64)
    steps = np.cumsum(np.bincount(ranks))[:-1]
    for rows in np.split(np.argsort(ranks, kind="stable"), steps):
        group, prediction = groups[rows], predictions[rows]
        clusters = slice(max(1, int(used.max())))
        fused = sums[group, clusters] / np.maximum(weights[group, clusters], _TINY)[..., None]
        iou = _iou(boxes[rows, None], fused)
        iou[joined[group, clusters, prediction]] = 0
        best = iou.argmax(axis=1)
        joins = iou[np.arange(len(rows)), best] > iou_thr
        slot = np.where(joins, best, used[group])
        used[group] += ~joins
        # Boxes with a score of 0 still have a place.
        weight = np.maximum(scores[rows], 1e-9)
        sums[group, slot] += weight[:, None] * boxes[rows]
        weights[group, slot] += weight
        totals[group, slot] += scores[rows]
        joined[group, slot, prediction] = True
    taken = weights > 0
    fused = sums[taken] / weights[taken][:, None]
    return fused, totals[taken] / num_predictions, taken.nonzero()[0]


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the IoU of boxes (..., 2 d) that broadcast against each other."""
    axes = boxes.shape[-1] // 2
    low = np.maximum(boxes[..., :axes], others[..., :axes])
    high = np.minimum(boxes[..., axes:], others[..., axes:])
    overlap = np.clip(high - low, 0, None).prod(axis=-1)
    size, other_size = (
        np.clip(one[..., axes:] - one[..., :axes], 0, None).prod(axis=-1) for one in (boxes, others)
    )
    return overlap / np.maximum(size + other_size - overlap, _TINY)
