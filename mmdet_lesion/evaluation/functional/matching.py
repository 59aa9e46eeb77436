"""Which detection hits which lesion, in descending order of score: what every curve is made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["Matches", "inclusive_iou", "match_detections", "pairs_on_same_place"]


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections in descending order of score, and the lesions that they hit.

    Everything is counted per detection and every detection knows its scan, so that a bootstrap
    round can weight scans without matching boxes again.

    Args:
        scores: ``(T,)`` descending.
        scans: ``(T,)`` index of each detection's scan.
        misses: ``(T,)`` bool, the detection hits no lesion.
        hits: ``(T,)`` lesions that this detection is the first to hit.
        doubles: ``(T,)`` lesions that it hits after another detection did.
        lesion_scans: ``(L,)`` index of each lesion's scan.
        lesion_hit_by: ``(L,)`` position of the first detection that hits the lesion, -1 for none.
        num_scans: Number of scans, empty ones included.
    """

    scores: np.ndarray
    scans: np.ndarray
    misses: np.ndarray
    hits: np.ndarray
    doubles: np.ndarray
    lesion_scans: np.ndarray
    lesion_hit_by: np.ndarray
    num_scans: int


def inclusive_iou(boxes: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """IoU of boxes in published coordinates, whose width is ``x2 - x1 + 1``.

    Args:
        boxes: ``(P, 4)`` xyxy. The area is taken in their own precision, as the published
            evaluators do with the float32 boxes of a detector.
        lesions: ``(P, 4)`` xyxy.

    Returns:
        ``(P,)`` float64, row by row.
    """
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float64)
    lesions = np.asarray(lesions, dtype=np.float64)
    sides = boxes[:, 2:] - boxes[:, :2] + boxes.dtype.type(1)
    lesion_sides = lesions[:, 2:] - lesions[:, :2] + 1
    overlap = np.minimum(lesions[:, 2:], boxes[:, 2:]) - np.maximum(lesions[:, :2], boxes[:, :2])
    intersection = np.prod(np.maximum(overlap + 1, 0), axis=1)
    union = np.prod(lesion_sides, axis=1) + np.prod(sides, axis=1) - intersection
    return intersection / np.maximum(union, 1e-6)


def pairs_on_same_place(
    places: np.ndarray, lesion_places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a box and a lesion that lie on the same place (slice of a scan, image).

    Args:
        places: ``(M,)`` integer place of each box.
        lesion_places: ``(L,)`` integer place of each lesion.

    Returns:
        Indices of the boxes, ascending, and of the lesions, both ``(P,)``.
    """
    order = np.argsort(lesion_places, kind="stable")
    occupied, first, counts = np.unique(lesion_places[order], return_index=True, return_counts=True)
    if not len(occupied):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    slot = np.minimum(np.searchsorted(occupied, places), len(occupied) - 1)
    boxes = np.flatnonzero(occupied[slot] == places)
    slot = slot[boxes]
    repeats = counts[slot]
    ends = np.cumsum(repeats)
    within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - repeats, repeats)
    return np.repeat(boxes, repeats), order[np.repeat(first[slot], repeats) + within]


def match_detections(
    scores: np.ndarray,
    scans: np.ndarray,
    pairs: tuple[np.ndarray, np.ndarray],
    lesion_scans: np.ndarray,
    num_scans: int,
) -> Matches:
    """Walk down the detections of all scans in descending order of score.

    A detection may hit several lesions, and only the first detection on a lesion counts as its hit.
    Equal scores keep the order of ``np.argsort(scores)[::-1]``, the published evaluators' own line,
    so that ties come out as theirs do on the same machine.

    Args:
        scores: ``(T,)`` in the precision in which they were published.
        scans: ``(T,)`` index of each detection's scan.
        pairs: Detection and lesion index of every hit, each ``(P,)``; repetitions count once.
        lesion_scans: ``(L,)`` index of each lesion's scan.
        num_scans: Number of scans, those without lesion and detection included.
    """
    order = np.argsort(scores)[::-1]
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))

    num_lesions = len(lesion_scans)
    keys = np.unique(rank[pairs[0]] * max(num_lesions, 1) + pairs[1])
    hit_rank, lesion = np.divmod(keys, max(num_lesions, 1))
    hit_by = np.full(num_lesions, -1, dtype=np.int64)
    # The keys ascend with the rank, so a lesion's first pair is its hit.
    found, first = np.unique(lesion, return_index=True)
    hit_by[found] = hit_rank[first]

    hits = np.bincount(hit_by[found], minlength=len(order))
    all_hits = np.bincount(hit_rank, minlength=len(order))
    return Matches(
        scores=scores[order],
        scans=scans[order],
        misses=all_hits == 0,
        hits=hits,
        doubles=all_hits - hits,
        lesion_scans=lesion_scans,
        lesion_hit_by=hit_by,
        num_scans=num_scans,
    )
