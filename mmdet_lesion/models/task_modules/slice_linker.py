"""Linking of boxes on slices to tracklets."""

from __future__ import annotations

import numpy as np
from mmdet.registry import TASK_UTILS
from numpy.typing import ArrayLike
from scipy.optimize import linear_sum_assignment

from mmdet_lesion.structures.tracklets import Tracklets

from ...errors import InputError
from .kalman import KalmanState

__all__ = ["SliceLinker"]


@TASK_UTILS.register_module()
class SliceLinker:
    """Link the boxes of a volume along z by Kalman filters and Hungarian assignment.

    On each slice, the box of every active tracklet is predicted, and boxes are assigned to
    tracklets so that the sum of IoUs is maximal; pairs with an IoU below ``iou_thr`` are not
    linked. An unassigned box starts a new tracklet.

    Args:
        max_gap: Largest number of consecutive slices without a box in a tracklet; 0 links adjacent
            slices only.
        min_length: Tracklets with fewer boxes are dropped.
        iou_thr: Lowest IoU of predicted and observed box for linking, above 0.

    Raises:
        InputError: An argument is out of range.

    Source: Lesion Harvester (Cai et al., TMI 2020), after SORT (Bewley et al., ICIP 2016).
    """

    def __init__(self, max_gap: int = 1, min_length: int = 1, iou_thr: float = 0.3) -> None:
        if max_gap < 0 or min_length < 1 or not 0 < iou_thr <= 1:
            raise InputError(
                f"SliceLinker: max_gap={max_gap}, min_length={min_length}, iou_thr={iou_thr}; "
                "expected max_gap >= 0, min_length >= 1 and 0 < iou_thr <= 1"
            )
        self.max_gap = max_gap
        self.min_length = min_length
        self.iou_thr = iou_thr

    def __call__(self, bboxes: ArrayLike, scores: ArrayLike, slice_inds: ArrayLike) -> Tracklets:
        """Link the boxes of one volume.

        Args:
            bboxes: Boxes xyxy with half-open edges, shape (N, 4).
            scores: Scores, shape (N,).
            slice_inds: Slice index of each box, shape (N,).

        Returns:
            Tracklets of the unchanged boxes, ordered by their first slice.
        """
        bboxes = np.asarray(bboxes, dtype=np.float64).reshape(-1, 4)
        scores = np.asarray(scores, dtype=np.float64)
        slice_inds = np.asarray(slice_inds, dtype=np.int64)
        if not len(bboxes):
            return Tracklets.empty()
        ids = self._assign(bboxes, slice_inds)
        keep = np.bincount(ids)[ids] >= self.min_length
        if not keep.any():
            return Tracklets.empty()
        return Tracklets.from_ids(bboxes[keep], scores[keep], slice_inds[keep], ids[keep])

    def _assign(self, bboxes: np.ndarray, slice_inds: np.ndarray) -> np.ndarray:
        """Return the tracklet index of each box, shape (N,)."""
        ids = np.empty(len(bboxes), dtype=np.int64)
        order = np.argsort(slice_inds, kind="stable")
        occupied, starts = np.unique(slice_inds[order], return_index=True)
        state = KalmanState.start(bboxes[:0])
        open_ids, last_seen = np.empty(0, np.int64), np.empty(0, np.int64)
        position, num_ids = occupied[0], 0
        for z, rows in zip(occupied, np.split(order, starts[1:]), strict=True):
            alive = z - last_seen <= self.max_gap + 1
            state, open_ids, last_seen = state[alive], open_ids[alive], last_seen[alive]
            if len(state):
                for _ in range(z - position):
                    state = state.predicted()
            position = z

            tracks, boxes = self._pair(state.boxes(), bboxes[rows])
            ids[rows[boxes]] = open_ids[tracks]
            last_seen[tracks] = z
            new = np.setdiff1d(np.arange(len(rows)), boxes)
            ids[rows[new]] = num_ids + np.arange(len(new))

            waiting = np.setdiff1d(np.arange(len(state)), tracks)
            # Tracklets without a box on this slice keep their prediction, the others are updated.
            state = (
                state[waiting]
                .joined(state[tracks].updated(bboxes[rows[boxes]]))
                .joined(KalmanState.start(bboxes[rows[new]]))
            )
            open_ids = np.concatenate((open_ids[waiting], open_ids[tracks], ids[rows[new]]))
            last_seen = np.concatenate(
                (last_seen[waiting], last_seen[tracks], np.full(len(new), z, dtype=np.int64))
            )
            num_ids += len(new)
        return ids

    def _pair(self, predicted: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        iou = _iou(predicted, boxes)
        iou[iou < self.iou_thr] = 0
        tracks, found = linear_sum_assignment(iou, maximize=True)
        linked = iou[tracks, found] > 0
        return tracks[linked], found[linked]


def _iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the IoUs (T, N) of half-open boxes."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    overlap = np.clip(high - low, 0, None).prod(axis=2)
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    other_area = (others[:, 2:] - others[:, :2]).prod(axis=1)
    union = area[:, None] + other_area[None] - overlap
    return overlap / np.maximum(union, np.finfo(np.float64).tiny)
