"""The official key-slice protocol of DeepLesion: boxes against marks, image by image.

Yan et al., "3D context enhanced region-based CNN for end-to-end lesion detection", MICCAI 2018, and
the evaluation code that the authors published with it and with MULAN (MICCAI 2019).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from .matching import inclusive_iou, match_detections, pairs_on_same_place
from .result import FROCResult, froc_result

__all__ = ["SLICE_FP_RATES", "SLICE_MEAN_RATES", "slice_froc"]

SLICE_FP_RATES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SLICE_MEAN_RATES = SLICE_FP_RATES[:4]


def slice_froc(
    detections: Mapping[Hashable, ArrayLike],
    ground_truth: Mapping[Hashable, ArrayLike],
    *,
    iou_thr: float = 0.5,
    fp_rates: Sequence[float] = SLICE_FP_RATES,
    mean_rates: Sequence[float] = SLICE_MEAN_RATES,
) -> FROCResult:
    """FROC over images.

    A box hits every mark of its image with which its IoU is ``iou_thr`` or more; a mark that is hit
    again counts neither way. Areas count pixels inclusively. Sensitivities are interpolated as
    published: the upper end of a vertical step, and the last sensitivity to the right of the curve.

    Args:
        detections: ``{image: (n, 5)}`` rows ``[x1, y1, x2, y2, score]`` in published coordinates;
            images may be absent.
        ground_truth: ``{image: (m, 4 or more)}`` rows ``[x1, y1, x2, y2, ...]``; images without a
            mark count too.
        iou_thr: IoU from which on a mark is hit.
        fp_rates: Operating points, mean false positives per image.
        mean_rates: Those of ``fp_rates`` whose mean sensitivity is the headline.

    Returns:
        Operating points (zeros without any detection, NaN without any mark), curve, counts.

    Raises:
        ValueError: No image, a detection on an image that the ground truth lacks, rows of a wrong
            length, a value that is not finite.
    """
    unknown = [key for key, rows in detections.items() if len(rows) and key not in ground_truth]
    if unknown:
        raise ValueError(
            f"detections hold {len(unknown)} image(s) that the ground truth lacks, "
            f"first {unknown[0]!r}"
        )
    marks = [_rows(rows, 4, f"marks of {key!r}") for key, rows in ground_truth.items()]
    found = [_rows(detections.get(key, ()), 5, f"detections of {key!r}") for key in ground_truth]
    mark_images = np.repeat(np.arange(len(marks)), [len(rows) for rows in marks])
    images = np.repeat(np.arange(len(found)), [len(rows) for rows in found])
    mark_boxes = np.concatenate([*marks, np.empty((0, 4))])[:, :4]
    boxes = np.concatenate([rows for rows in found if len(rows)] or [np.empty((0, 5))])

    box, mark = pairs_on_same_place(images, mark_images)
    hit = inclusive_iou(boxes[box, :4], mark_boxes[mark]) >= iou_thr
    matches = match_detections(
        boxes[:, 4], images, (box[hit], mark[hit]), mark_images, len(ground_truth)
    )
    return froc_result(
        matches,
        protocol="slice",
        settings={"iou_thr": iou_thr},
        fp_rates=fp_rates,
        mean_rates=mean_rates,
        interpolate=_interpolate,
        with_ap=False,
    )


def _interpolate(fps: np.ndarray, sensitivity: np.ndarray, fp_rates: np.ndarray) -> np.ndarray:
    return np.interp(fp_rates, fps, sensitivity) if len(fps) else np.zeros(len(fp_rates))


def _rows(rows: ArrayLike, width: int, where: str) -> np.ndarray:
    """Rows of ``width`` numbers; marks (four) may carry more, which are left out."""
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(1, dtype=object)
    if array.size == 0:
        return np.empty((0, width))
    longest = width if width == 5 else np.inf
    if array.ndim != 2 or array.dtype.kind not in "fiu" or not width <= array.shape[1] <= longest:
        raise ValueError(f"{where} hold something else than rows of {width} numbers")
    if not np.isfinite(array).all():
        raise ValueError(f"{where} hold NaN or infinity; expected finite numbers")
    return array[:, :width]
