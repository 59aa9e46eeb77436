"""FROC of boxes in images or volumes, shared by the protocols ``slice`` and ``box3d``."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from .matching import Rows, link_lesions, match_detections, pairs_on_same_place
from .result import CurveRule, FROCResult, froc_result

__all__ = ["boxes_froc"]


def boxes_froc(
    detections: Mapping[Hashable, Rows],
    ground_truth: Mapping[Hashable, Rows],
    *,
    protocol: str,
    sides: int,
    names: tuple[str, str],
    overlap: Callable[[np.ndarray, np.ndarray], np.ndarray],
    iou_thr: float,
    settings: dict[str, Any],
    fp_rates: Sequence[float],
    mean_rates: Sequence[float],
    lesion_ids: Mapping[Hashable, Sequence[Hashable | None]] | None = None,
) -> FROCResult:
    """Compute the FROC of boxes that hit every lesion of the same place with enough overlap.

    A place is an image or a volume.

    Args:
        detections: Boxes and scores by place, each of shape (n, sides + 1), the score last. Places
            may be absent.
        ground_truth: Boxes by place, each of shape (m, sides or more).
        protocol: Name of the protocol.
        sides: Number of coordinates of a box, 4 or 6.
        names: Words for a place and a lesion in messages.
        overlap: Function of P boxes and P lesions, both of shape (P, sides), that returns their
            overlaps, shape (P,).
        iou_thr: Minimum overlap of a hit.
        settings: Settings of the protocol.
        fp_rates: Operating points, mean false positives per place.
        mean_rates: Operating points whose sensitivities are averaged.
        lesion_ids: Lesion of each ground-truth box by place; boxes with the same id are one
            lesion, also in different places, and a box with None is one of its own. Places may be
            absent.

    Raises:
        ValueError: There is no place, a detection is in a place that the ground truth lacks, rows
            have a wrong length or values that are not finite, or the number of ids of a place is
            not that of its boxes.
    """
    place, lesion = names
    unknown = [key for key, rows in detections.items() if len(rows) and key not in ground_truth]
    if unknown:
        raise ValueError(
            f"detections contain {len(unknown)} {place}(s) that the ground truth lacks, first "
            f"{unknown[0]!r}; expected only {place}s of the ground truth"
        )
    lesions = [
        _rows(rows, sides, f"{lesion}s of {key!r}", more=True) for key, rows in ground_truth.items()
    ]
    found = [
        _rows(detections.get(key, ()), sides + 1, f"detections of {key!r}") for key in ground_truth
    ]
    box_places = np.repeat(np.arange(len(lesions)), [len(rows) for rows in lesions])
    ids: list[Hashable | None] = []
    for key, rows in zip(ground_truth, lesions):
        own = (lesion_ids or {}).get(key, [None] * len(rows))
        if len(own) != len(rows):
            raise ValueError(
                f"{place} {key!r} has {len(own)} lesion ids and {len(rows)} {lesion}s; expected "
                "one id for each"
            )
        ids += own
    lesion_of, lesion_places = link_lesions(ids, box_places)
    places = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    lesion_boxes = np.concatenate([*lesions, np.empty((0, sides))])
    boxes = np.concatenate([rows for rows in found if len(rows)] or [np.empty((0, sides + 1))])

    box, hit = pairs_on_same_place(places, box_places)
    enough = overlap(boxes[box, :sides], lesion_boxes[hit]) >= iou_thr
    matches = match_detections(
        boxes[:, sides],
        places,
        (box[enough], lesion_of[hit[enough]]),
        lesion_places,
        len(ground_truth),
    )
    return froc_result(
        matches,
        protocol=protocol,
        settings=settings,
        fp_rates=fp_rates,
        mean_rates=mean_rates,
        rule=CurveRule(),
        scans=list(ground_truth),
    )


def _rows(rows: Rows, width: int, where: str, *, more: bool = False) -> np.ndarray:
    """Convert rows to an array (N, width); with ``more``, additional columns are dropped."""
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(1, dtype=object)
    if array.size == 0:
        return np.empty((0, width))
    right = array.ndim == 2 and array.dtype.kind in "fiu"
    if not right or array.shape[1] < width or (array.shape[1] > width and not more):
        raise ValueError(f"{where} are malformed; expected rows of {width} numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} contain NaN or infinity; expected finite numbers")
    return array[:, :width]
