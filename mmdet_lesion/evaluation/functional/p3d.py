"""FROC of tracklets under the pseudo-3D IoU.

Source: Cai et al., "Lesion Harvester: iteratively mining unlabeled lesions and hard-negative
examples at scale", TMI 2020, section "Evaluation", and the authors' evaluation script.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .containers import (
    Lesions,
    TrackletBoxes,
    flatten_ids,
    flatten_lesions,
    flatten_tracklets,
    number_scans,
)
from .matching import inclusive_iou, link_lesions, match_detections, pairs_on_same_place
from .result import CurveRule, FROCResult, froc_result

if TYPE_CHECKING:
    from ...structures import Tracklets

__all__ = ["P3D_FP_RATES", "P3D_MEAN_RATES", "p3d_froc"]

P3D_FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
P3D_MEAN_RATES = P3D_FP_RATES[:-1]


def p3d_froc(
    detections: Mapping[str, Tracklets],
    ground_truth: Mapping[str, Mapping[int, Sequence[Sequence[float]]]],
    *,
    lesion_ids: Mapping[str, Mapping[int, Sequence[Hashable | None]]] | None = None,
    iou_thr: float = 0.5,
    fp_rates: Sequence[float] = P3D_FP_RATES,
    mean_rates: Sequence[float] = P3D_MEAN_RATES,
    extrapolate: bool = True,
) -> FROCResult:
    """Compute FROC and average precision under the pseudo-3D IoU.

    A tracklet hits a lesion if the IoU of the lesion and the tracklet's (first) box on the lesion's
    slice is at least ``iou_thr``. Its confidence is the largest of its scores. A tracklet may hit
    several lesions; one that hits none is a false positive. A further hit of a lesion is neither a
    hit nor a false positive in the FROC, and a false positive in the AP. Areas count pixels
    inclusively.

    As published, each box of the ground truth is a lesion. With ``lesion_ids``, boxes of a volume
    with the same id are one lesion, which a tracklet hits if it hits any of them.

    Without ``lesion_ids``, the metrics equal those of the published script, including ties: equal
    confidences are ranked by ``np.argsort(...)[::-1]`` in the precision of the scores, over the
    tracklets in the order of ``detections``.

    Args:
        detections: Tracklets in published coordinates by volume
            (:class:`~mmdet_lesion.structures.Tracklets`, or any object with its arrays). Volumes
            may be absent or empty.
        ground_truth: ``{volume: {z: [[x1, y1, x2, y2, ...], ...]}}``; ``.annot`` at the end of a
            name is ignored. Volumes without a lesion count as scans.
        lesion_ids: Lesion of each box of ``ground_truth`` in the same structure; None for a box
            that is a lesion of its own. Volumes may be absent.
        iou_thr: Minimum IoU of a hit.
        fp_rates: Operating points, mean false positives per sub-volume.
        mean_rates: Operating points whose sensitivities are averaged.
        extrapolate: Whether to extend the outermost segments of the curve, as published. The
            sensitivity may then be outside [0, 1], and is NaN or infinite if the segment is
            vertical. Otherwise, the outermost sensitivity is used.

    Returns:
        The result. Sensitivities are 0 without any detection and NaN without any lesion.

    Raises:
        ValueError: There is no volume, there is a volume with and without ``.annot``, a detection
            is in a volume that the ground truth lacks, rows have a wrong length or values that
            are not finite, or the number of ids of a slice is not that of its boxes.
    """
    names = number_scans(ground_truth)
    boxes = flatten_lesions(ground_truth)
    tracklets = flatten_tracklets(detections, names)
    ids = flatten_ids(ground_truth, lesion_ids or {})
    lesion_of, lesion_scans = link_lesions(ids, boxes.scans)
    tracklet, box = _hits(tracklets, boxes, iou_thr)
    matches = match_detections(
        tracklets.confidences,
        tracklets.scans,
        (tracklet, lesion_of[box]),
        lesion_scans,
        len(names),
    )
    return froc_result(
        matches,
        protocol="p3d",
        settings={"iou_thr": iou_thr, "extrapolate": extrapolate},
        fp_rates=fp_rates,
        mean_rates=mean_rates,
        rule=CurveRule(upper=False, extrapolate=extrapolate, with_ap=True),
        scans=list(names),
    )


def _hits(
    tracklets: TrackletBoxes, lesions: Lesions, iou_thr: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of tracklet and lesion of every hit, both of shape (P,)."""
    num_lesions = len(lesions.scans)
    if not num_lesions:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    low, high = lesions.slices.min(), lesions.slices.max()
    span = high - low + 1
    near = np.flatnonzero((tracklets.slices >= low) & (tracklets.slices <= high))
    box, lesion = pairs_on_same_place(
        tracklets.scans[tracklets.owners[near]] * span + (tracklets.slices[near] - low),
        lesions.scans * span + (lesions.slices - low),
    )
    box = near[box]
    # The published script uses only the first of several boxes of a tracklet on one slice.
    _, first = np.unique(tracklets.owners[box] * num_lesions + lesion, return_index=True)
    box, lesion = box[first], lesion[first]
    hit = inclusive_iou(tracklets.boxes[box], lesions.boxes[lesion]) >= iou_thr
    return tracklets.owners[box[hit]], lesion[hit]
