"""Matching of detections to lesions in descending order of score, shared by all protocols."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "Matches",
    "Rows",
    "inclusive_iobb",
    "inclusive_iou",
    "match_detections",
    "pairs_on_same_place",
    "select_lesions",
]

Rows = np.ndarray | Sequence[Sequence[float]]
"""Boxes or points, one a row: an array, or a list of lists, which may be empty."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Detections in descending order of score, and the lesions that they hit.

    Counts are per detection and every detection has its scan, so that a bootstrap round can weight
    scans without matching again.

    Args:
        scores: ``(T,)`` descending.
        scans: ``(T,)`` index of each detection's scan.
        misses: ``(T,)`` bool, the detection hits no lesion and is not ignored.
        hits: ``(T,)`` lesions that this detection is the first to hit.
        duplicates: ``(T,)`` lesions that it hits after another detection did.
        lesion_scans: ``(L,)`` index of each lesion's scan.
        lesion_hit_by: ``(L,)`` position of the first detection that hits the lesion, -1 for none.
        pairs: Detection (position) and lesion of every hit, each ``(P,)``, ascending.
        ignored: Detections that hit no lesion and are not false positives either.
        num_scans: Number of scans, empty ones included.
    """

    scores: np.ndarray
    scans: np.ndarray
    misses: np.ndarray
    hits: np.ndarray
    duplicates: np.ndarray
    lesion_scans: np.ndarray
    lesion_hit_by: np.ndarray
    pairs: tuple[np.ndarray, np.ndarray]
    ignored: int
    num_scans: int


def inclusive_iou(boxes: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """IoU of boxes in published coordinates, whose width is ``x2 - x1 + 1``.

    Args:
        boxes: ``(P, 4)`` xyxy or ``(P, 6)`` xyzxyz. The size is taken in their own precision, as
            the published evaluators do with the float32 boxes of a detector.
        lesions: As many, in the same order of coordinates.

    Returns:
        ``(P,)`` float64, row by row.
    """
    intersection, size, lesion_size = _inclusive_sizes(boxes, lesions)
    return intersection / np.maximum(lesion_size + size - intersection, 1e-6)


def inclusive_iobb(boxes: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Intersection over the detected box, in published coordinates as :func:`inclusive_iou`.

    Args:
        boxes: ``(P, 4)`` xyxy or ``(P, 6)`` xyzxyz.
        lesions: As many, in the same order of coordinates.

    Returns:
        ``(P,)`` float64, row by row.
    """
    intersection, size, _ = _inclusive_sizes(boxes, lesions)
    return intersection / np.maximum(size, 1e-6)


def _inclusive_sizes(
    boxes: np.ndarray, lesions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Size of the intersections, of the boxes and of the lesions."""
    if boxes.dtype.kind != "f":
        boxes = boxes.astype(np.float64)
    lesions = np.asarray(lesions, dtype=np.float64)
    half = boxes.shape[1] // 2
    (low, high), (first, last) = np.hsplit(boxes, (half,)), np.hsplit(lesions, (half,))
    overlap = np.minimum(last, high) - np.maximum(first, low)
    return (
        np.prod(np.maximum(overlap + 1, 0), axis=1),
        np.prod(high - low + boxes.dtype.type(1), axis=1),
        np.prod(last - first + 1, axis=1),
    )


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
    ignored: np.ndarray | None = None,
) -> Matches:
    """Match the detections of all scans in descending order of score.

    A detection may hit several lesions, and only the first detection on a lesion counts as its hit.
    Equal scores keep the order of ``np.argsort(scores)[::-1]``, the published evaluators' own line,
    so that ties come out as theirs do on the same machine.

    Args:
        scores: ``(T,)`` in the precision in which they were published.
        scans: ``(T,)`` index of each detection's scan.
        pairs: Detection and lesion index of every hit, each ``(P,)``; repetitions count once.
        lesion_scans: ``(L,)`` index of each lesion's scan.
        num_scans: Number of scans, those without lesion and detection included.
        ignored: ``(T,)`` bool, detections that are no false positives where they hit no lesion.
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
    free = all_hits == 0
    misses = free if ignored is None else free & ~ignored[order]
    return Matches(
        scores=scores[order],
        scans=scans[order],
        misses=misses,
        hits=hits,
        duplicates=all_hits - hits,
        lesion_scans=lesion_scans,
        lesion_hit_by=hit_by,
        pairs=(hit_rank, lesion),
        ignored=int(np.count_nonzero(free & ~misses)),
        num_scans=num_scans,
    )


def select_lesions(matches: Matches, chosen: np.ndarray) -> Matches:
    """Restrict matches to some of the lesions; the others are neither hit nor missed.

    A detection that hits only other lesions is ignored.

    Args:
        matches: Matches with all lesions.
        chosen: ``(L,)`` bool.
    """
    rank, lesion = matches.pairs
    kept = chosen[lesion]
    rank, lesion = rank[kept], (np.cumsum(chosen) - 1)[lesion[kept]]
    hit_by = matches.lesion_hit_by[chosen]
    hits = np.bincount(hit_by[hit_by >= 0], minlength=len(matches.scores))
    all_hits = np.bincount(rank, minlength=len(matches.scores))
    return replace(
        matches,
        hits=hits,
        duplicates=all_hits - hits,
        lesion_scans=matches.lesion_scans[chosen],
        lesion_hit_by=hit_by,
        pairs=(rank, lesion),
        ignored=int(np.count_nonzero((all_hits == 0) & ~matches.misses)),
    )
