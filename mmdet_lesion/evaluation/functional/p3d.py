"""Pseudo-3D IoU: tracklets against lesion boxes on single slices of sub-volumes.

Cai et al., "Lesion Harvester: iteratively mining unlabeled lesions and hard-negative examples at
scale", TMI 2020, section "Evaluation", and the authors' evaluation script.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .containers import Lesions, TrackletBoxes, flatten_lesions, flatten_tracklets, number_scans
from .matching import inclusive_iou, match_detections, pairs_on_same_place
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
    iou_thr: float = 0.5,
    fp_rates: Sequence[float] = P3D_FP_RATES,
    mean_rates: Sequence[float] = P3D_MEAN_RATES,
    extrapolate: bool = True,
) -> FROCResult:
    """Compute FROC and average precision under the pseudo-3D IoU.

    A tracklet hits a lesion if its (first) box on the lesion's slice has an IoU of ``iou_thr`` or
    more with it; its confidence is the largest of its scores. It may hit several lesions. Hitting
    none is a false positive; a lesion hit again is neither hit nor false positive in the FROC and
    one false positive in the AP. Areas count pixels inclusively.

    Figures equal those of the published script, ties included: equal confidences are ranked by
    ``np.argsort(...)[::-1]`` in the precision of the scores, over the tracklets in the order of
    ``detections``.

    Args:
        detections: ``{volume: tracklets}`` in published coordinates
            (:class:`~mmdet_lesion.structures.Tracklets`, or any object with its arrays). Volumes
            may be absent or empty.
        ground_truth: ``{volume: {z: [[x1, y1, x2, y2, ...], ...]}}``; a trailing ``.annot`` of a
            name is ignored. Volumes without a lesion count as scans.
        iou_thr: Minimum IoU of a hit.
        fp_rates: Operating points, mean false positives per sub-volume.
        mean_rates: Those of ``fp_rates`` whose sensitivities are averaged.
        extrapolate: Outside the curve extend its outermost segment, as published: the
            sensitivity may then leave [0, 1], and is NaN or infinite where that segment is
            vertical. False: the outermost sensitivity holds.

    Returns:
        Operating points (zeros without any detection, NaN without any lesion), AP, curve, counts.

    Raises:
        ValueError: No volume, a volume twice (with and without ``.annot``), a detection in a volume
            that the ground truth lacks, rows of a wrong length, a value that is not finite.
    """
    names = number_scans(ground_truth)
    lesions = flatten_lesions(ground_truth)
    tracklets = flatten_tracklets(detections, names)
    pairs = _hits(tracklets, lesions, iou_thr)
    matches = match_detections(
        tracklets.confidences, tracklets.scans, pairs, lesions.scans, len(names)
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
    """Tracklet and lesion index of every hit."""
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
    # Of several boxes of a tracklet on one slice the published script sees the first alone.
    _, first = np.unique(tracklets.owners[box] * num_lesions + lesion, return_index=True)
    box, lesion = box[first], lesion[first]
    hit = inclusive_iou(tracklets.boxes[box], lesions.boxes[lesion]) >= iou_thr
    return tracklets.owners[box[hit]], lesion[hit]
