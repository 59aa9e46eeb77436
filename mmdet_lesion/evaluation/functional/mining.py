"""Tracklets of lesions without an annotation, and how many of them are right."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...structures.tracklets import Tracklets
from .matching import inclusive_iou, pairs_on_same_place
from .p3d import p3d_froc

__all__ = [
    "MiningCurve",
    "hidden_lesions",
    "largest_iou",
    "mining_curve",
    "propagated",
    "select_unannotated",
]

#: A lesion is annotated if a box of it has this IoU with an annotation.
SAME_LESION_IOU = 0.5


@dataclass(frozen=True, eq=False)
class MiningCurve:
    """Precision and recall of mined lesions at descending score thresholds.

    Args:
        scores: Thresholds: the score of each mined lesion, descending, shape (M,).
        precision: Share of the lesions mined at this threshold that hit a hidden lesion, (M,).
        recall: Share of the hidden lesions that were hit, shape (M,).
        hidden: Number of hidden lesions.
    """

    scores: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    hidden: int

    def at(self, score_thr: float) -> tuple[int, float, float]:
        """Return the number of mined lesions, precision and recall at a threshold.

        The precision of no mined lesion is NaN.
        """
        count = int(np.searchsorted(-self.scores, -score_thr, side="right"))
        if not count:
            return 0, float("nan"), 0.0 if self.hidden else float("nan")
        return count, float(self.precision[count - 1]), float(self.recall[count - 1])


def largest_iou(tracklets: Tracklets, rows: np.ndarray) -> np.ndarray:
    """Compute the largest IoU of each tracklet with boxes on single slices.

    Args:
        tracklets: T tracklets in published coordinates.
        rows: Boxes ``[z, x1, y1, x2, y2]`` in published coordinates, shape (n, 5).

    Returns:
        The largest IoU on any slice, 0 without a common slice, shape (T,).
    """
    best = np.zeros(len(tracklets))
    box, row = pairs_on_same_place(tracklets.slices, rows[:, 0].astype(np.int64))
    if len(box):
        iou = inclusive_iou(tracklets.boxes[box].astype(np.float64), rows[row, 1:])
        np.maximum.at(best, tracklets.ids[box], iou)
    return best


def select_unannotated(
    tracklets: Tracklets, rows: np.ndarray, iou_thr: float, score_thr: float = 0.0
) -> np.ndarray:
    """Select tracklets by NMS with the boxes of annotations, as GT-NMS does with single boxes.

    Args:
        tracklets: T tracklets in published coordinates. The score of a tracklet is the largest
            one of its boxes.
        rows: Boxes of annotations ``[z, x1, y1, x2, y2]`` in published coordinates, shape (n, 5).
        iou_thr: A tracklet is dropped if its IoU on any slice with an annotation, or with a kept
            tracklet of a higher score, exceeds this threshold.
        score_thr: Tracklets with a lower score are dropped.

    Returns:
        Indices of the kept tracklets by descending score, shape (K,), int64.
    """
    scores = tracklets.confidence()
    candidates = (scores >= score_thr) & (largest_iou(tracklets, rows) <= iou_thr)
    box, other = pairs_on_same_place(tracklets.slices, tracklets.slices)
    owner, rival = tracklets.ids[box], tracklets.ids[other]
    apart = owner != rival
    box, other, owner, rival = box[apart], other[apart], owner[apart], rival[apart]
    boxes = tracklets.boxes.astype(np.float64)
    clash = inclusive_iou(boxes[box], boxes[other]) > iou_thr if len(box) else np.zeros(0, bool)
    clashes: dict[int, set[int]] = {}
    for one, two in zip(owner[clash].tolist(), rival[clash].tolist()):
        clashes.setdefault(one, set()).add(two)
    kept: list[int] = []
    dropped: set[int] = set()
    for index in np.argsort(-scores, kind="stable").tolist():
        if candidates[index] and index not in dropped:
            kept.append(index)
            dropped |= clashes.get(index, set())
    return np.array(kept, dtype=np.int64)


def propagated(
    tracklets: Tracklets, rows: np.ndarray, iou_thr: float, score_thr: float = 0.0
) -> Tracklets:
    """Select the boxes of annotated lesions on the slices around the annotations.

    Args:
        tracklets: T tracklets in published coordinates.
        rows: Boxes of annotations ``[z, x1, y1, x2, y2]`` in published coordinates, shape (n, 5).
        iou_thr: A tracklet belongs to an annotation if the IoU of its box with it is at least this.
        score_thr: Boxes with a lower score are dropped.

    Returns:
        The tracklets of annotated lesions in their order, without boxes on slices where they have
        an annotation. Tracklets of which no box remains are dropped.
    """
    box, row = pairs_on_same_place(tracklets.slices, rows[:, 0].astype(np.int64))
    hit = np.zeros(len(tracklets.slices), dtype=bool)
    if len(box):
        iou = inclusive_iou(tracklets.boxes[box].astype(np.float64), rows[row, 1:])
        hit[box[iou >= iou_thr]] = True
    owners = np.unique(tracklets.ids[hit])
    keep = np.isin(tracklets.ids, owners) & ~hit & (tracklets.scores >= score_thr)
    if not keep.any():
        return Tracklets.empty()
    return Tracklets.from_ids(
        tracklets.boxes[keep], tracklets.scores[keep], tracklets.slices[keep], tracklets.ids[keep]
    )


def hidden_lesions(
    rows: np.ndarray, ids: Sequence[Hashable | None], annotated: np.ndarray
) -> np.ndarray:
    """Find the boxes of lesions that have no annotation.

    Args:
        rows: Boxes of the complete ground truth ``[z, x1, y1, x2, y2]`` in published coordinates,
            shape (n, 5).
        ids: Lesion of each box, or None for a box that is a lesion of its own.
        annotated: Boxes of the annotations, shape (m, 5).

    Returns:
        Whether the lesion of each box is hidden: no box of it has an IoU of 0.5 or more with an
        annotation on its slice, shape (n,), bool.
    """
    box, row = pairs_on_same_place(rows[:, 0].astype(np.int64), annotated[:, 0].astype(np.int64))
    known = np.zeros(len(rows), dtype=bool)
    if len(box):
        known[box[inclusive_iou(rows[box, 1:], annotated[row, 1:]) >= SAME_LESION_IOU]] = True
    names = {name for name, is_known in zip(ids, known) if is_known and name is not None}
    return ~(known | np.array([name in names for name in ids], dtype=bool).reshape(len(rows)))


def mining_curve(
    mined: Mapping[str, Tracklets],
    hidden: Mapping[str, np.ndarray],
    ids: Mapping[str, Sequence[Hashable | None]],
    iou_thr: float = 0.5,
) -> MiningCurve:
    """Compute precision and recall of mined lesions.

    A mined tracklet hits a hidden lesion as in :func:`.p3d_froc`. One that hits a lesion that a
    tracklet of a higher score has hit is neither right nor wrong.

    Args:
        mined: Tracklets in published coordinates by volume.
        hidden: Boxes of the hidden lesions ``[z, x1, y1, x2, y2]`` by volume, shape (n, 5); every
            volume whose lesions are all known, also without hidden ones.
        ids: Lesion of each box by volume.
        iou_thr: Minimum IoU of a hit.

    Raises:
        ValueError: ``hidden`` is empty, or lacks a volume of ``mined``.
    """
    truth: dict[str, dict[int, list]] = {}
    lesions: dict[str, dict[int, list]] = {}
    for name, rows in hidden.items():
        boxes, names = truth.setdefault(name, {}), lesions.setdefault(name, {})
        for (z, *box), lesion in zip(rows.tolist(), ids[name], strict=True):
            boxes.setdefault(int(z), []).append(box)
            names.setdefault(int(z), []).append(lesion)
    matches = p3d_froc(mined, truth, lesion_ids=lesions, iou_thr=iou_thr).matches
    right = (matches.hits > 0).cumsum()
    wrong = matches.misses.cumsum()
    total = len(matches.lesion_scans)
    with np.errstate(invalid="ignore"):
        recall = matches.hits.cumsum() / np.float64(total)
        precision = right / (right + wrong)
    return MiningCurve(matches.scores, precision, recall, total)
