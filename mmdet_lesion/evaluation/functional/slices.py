"""FROC of boxes on key slices, the official protocol of DeepLesion.

Source: Yan et al., "3D context enhanced region-based CNN for end-to-end lesion detection", MICCAI
2018, and the evaluation code published with it and with MULAN (MICCAI 2019).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from .boxes import boxes_froc
from .matching import Rows, inclusive_iou
from .result import FROCResult

__all__ = ["SLICE_FP_RATES", "SLICE_MEAN_RATES", "slice_froc"]

SLICE_FP_RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SLICE_MEAN_RATES = SLICE_FP_RATES[:4]


def slice_froc(
    detections: Mapping[Hashable, Rows],
    ground_truth: Mapping[Hashable, Rows],
    *,
    lesion_ids: Mapping[Hashable, Sequence[Hashable | None]] | None = None,
    iou_thr: float = 0.5,
    fp_rates: Sequence[float] = SLICE_FP_RATES,
    mean_rates: Sequence[float] = SLICE_MEAN_RATES,
) -> FROCResult:
    """Compute the FROC over images.

    A box hits every lesion of its image with an IoU of at least ``iou_thr``; further hits of a
    lesion are neither true nor false positives. Areas count pixels inclusively. Sensitivities are
    interpolated as published: the upper end of a vertical step, and the last sensitivity to the
    right of the curve.

    As published, each box of the ground truth is a lesion. With ``lesion_ids``, boxes with the same
    id are one lesion, also on different images, and a detection that hits any of them hits it.

    Args:
        detections: Rows ``[x1, y1, x2, y2, score]`` in published coordinates by image, each array
            of shape (n, 5). Images may be absent.
        ground_truth: Rows ``[x1, y1, x2, y2, ...]`` by image, each array of shape (m, 4 or more).
            Images without a lesion count too.
        lesion_ids: Lesion of each row of ``ground_truth`` by image, the same on all images of a
            lesion; None for a box that is a lesion of its own. Images may be absent.
        iou_thr: Minimum IoU of a hit.
        fp_rates: Operating points, mean false positives per image.
        mean_rates: Operating points whose sensitivities are averaged.

    Returns:
        The result. Sensitivities are 0 without any detection and NaN without any lesion.

    Raises:
        ValueError: There is no image, a detection is in an image that the ground truth lacks, rows
            have a wrong length or values that are not finite, or the number of ids of an image is
            not that of its boxes.
    """
    return boxes_froc(
        detections,
        ground_truth,
        protocol="slice",
        sides=4,
        names=("image", "lesion"),
        overlap=inclusive_iou,
        iou_thr=iou_thr,
        settings={"iou_thr": iou_thr},
        fp_rates=fp_rates,
        mean_rates=mean_rates,
        lesion_ids=lesion_ids,
    )
