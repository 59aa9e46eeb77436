"""Matching of detections to lesions in descending order of score, shared by all protocols."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np

__all__ = [
    "Matches",
    "Rows",
    "inclusive_iobb",
    "inclusive_iou",
    "link_lesions",
    "match_detections",
    "pairs_on_same_place",
    "select_lesions",
]

Rows = np.ndarray | Sequence[Sequence[float]]
"""Boxes or points, one per row: an array, or a list of lists, which may be empty."""


@dataclass(frozen=True, eq=False)
class Matches:
    """The T detections in descending order of score, and the L lesions that they hit.

    Counts are stored per detection, so that a bootstrap round can weight scans without matching
    again.

    Args:
        scores: Scores, descending, shape (T,).
        scans: Index of each detection's scan, shape (T,).
        misses: Whether the detection hits no lesion and is not ignored, shape (T,), bool.
        hits: Number of lesions that this detection is the first to hit, shape (T,).
        duplicates: Number of lesions that it hits after another detection, shape (T,).
        lesion_scans: Index of each lesion's scan, shape (L,).
        lesion_hit_by: Position of the first detection that hits the lesion, -1 for none, shape
            (L,).
        pairs: Detection (position) and lesion of every hit, ascending, both of shape (P,).
        ignored: Number of detections that are neither hits nor false positives.
        num_scans: Number of scans, including empty ones.
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
    """Compute the IoU of boxes in published coordinates, whose width is ``x2 - x1 + 1``.

    Args:
        boxes: Boxes xyxy, shape (P, 4), or xyzxyz, shape (P, 6). Their size is computed in their
            own precision, as the published evaluators do with the float32 boxes of a detector.
        lesions: Boxes of the same shape.

    Returns:
        IoU of each row, shape (P,), float64.
    """
    intersection, size, lesion_size = _inclusive_sizes(boxes, lesions)
    return intersection / np.maximum(lesion_size + size - intersection, 1e-6)


def inclusive_iobb(boxes: np.ndarray, lesions: np.ndarray) -> np.ndarray:
    """Compute the intersection over the detected box, as :func:`inclusive_iou`.

    Args:
        boxes: Detected boxes xyxy, shape (P, 4), or xyzxyz, shape (P, 6).
        lesions: Boxes of the same shape.

    Returns:
        Intersection over detected box of each row, shape (P,), float64.
    """
    intersection, size, _ = _inclusive_sizes(boxes, lesions)
    return intersection / np.maximum(size, 1e-6)


def _inclusive_sizes(
    boxes: np.ndarray, lesions: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute the sizes of the intersections, the boxes and the lesions, each of shape (P,)."""
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
    """Find all pairs of a box and a lesion in the same place (slice of a scan, image or volume).

    Args:
        places: Integer place of each box, shape (M,).
        lesion_places: Integer place of each lesion, shape (L,).

    Returns:
        Indices of the boxes, ascending, and of the lesions, both of shape (P,).
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


def link_lesions(
    ids: Sequence[Hashable | None], places: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Number the lesions of ground-truth boxes, of which a lesion may have several.

    Args:
        ids: Lesion of each box; boxes with None are lesions of their own, shape (L,).
        places: Integer scan of each box, shape (L,).

    Returns:
        Number of each box's lesion in the order of the lesions' first boxes, shape (L,), and the
        scan of each lesion's first box, shape (K,).
    """
    numbers: dict[Hashable, int] = {}
    keys = ((True, index) if name is None else (False, name) for index, name in enumerate(ids))
    lesions = np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64)
    _, first = np.unique(lesions, return_index=True)
    return lesions, places[first]


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
    Equal scores are ranked by ``np.argsort(scores)[::-1]``, as in the published evaluators, so that
    ties are resolved as there on the same machine.

    Args:
        scores: Scores in the precision in which they were published, shape (T,).
        scans: Index of each detection's scan, shape (T,).
        pairs: Detection and lesion index of every hit, both of shape (P,); repetitions count once.
        lesion_scans: Index of each lesion's scan, shape (L,).
        num_scans: Number of scans, including those without lesion and detection.
        ignored: Detections that are not false positives even if they hit no lesion, shape (T,),
            bool.
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
    """Restrict matches to some of the lesions.

    Detections that hit only other lesions are ignored.

    Args:
        matches: Matches with all lesions.
        chosen: Lesions to keep, shape (L,), bool.
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
