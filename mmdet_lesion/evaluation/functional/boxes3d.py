"""FROC of 3D boxes in sub-volumes, as published with DeepLesion's manual 1K set.

Source: Yan et al., "Learning from multiple datasets with heterogeneous and partial labels for
universal lesion detection in CT", TMI 2020, and the evaluation code published with the set.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

from .boxes import boxes_froc
from .matching import Rows, inclusive_iobb, inclusive_iou
from .result import FROCResult

__all__ = ["BOX3D_FP_RATES", "box3d_froc"]

BOX3D_FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
_OVERLAPS = {"iobb": inclusive_iobb, "iou": inclusive_iou}


def box3d_froc(
    detections: Mapping[Hashable, Rows],
    ground_truth: Mapping[Hashable, Rows],
    *,
    overlap: str = "iobb",
    iou_thr: float = 0.3,
    fp_rates: Sequence[float] = BOX3D_FP_RATES,
    mean_rates: Sequence[float] = BOX3D_FP_RATES,
) -> FROCResult:
    """Compute the FROC over sub-volumes.

    A box hits every lesion of its sub-volume that it overlaps enough; further hits of a lesion are
    neither true nor false positives. Box sizes count voxels inclusively on all three axes.
    Sensitivities are interpolated as published: the upper end of a vertical step, the last
    sensitivity to the right of the curve, and 0 to its left (before the first false positive).

    Args:
        detections: Rows ``[x1, y1, z1, x2, y2, z2, score]`` in published coordinates by volume,
            each array of shape (n, 7). Volumes may be absent.
        ground_truth: Rows ``[x1, y1, z1, x2, y2, z2, ...]`` by volume, each array of shape
            (m, 6 or more). Volumes without a lesion count too.
        overlap: ``'iobb'`` (intersection over the detected box) or ``'iou'``.
        iou_thr: Minimum overlap of a hit.
        fp_rates: Operating points, mean false positives per sub-volume.
        mean_rates: Operating points whose sensitivities are averaged.

    Returns:
        The result. Sensitivities are 0 without any detection and NaN without any lesion.

    Raises:
        ValueError: ``overlap`` is unknown, there is no volume, a detection is in a volume that the
            ground truth lacks, or rows have a wrong length or values that are not finite.
    """
    if overlap not in _OVERLAPS:
        raise ValueError(f"overlap is {overlap!r}; expected one of {', '.join(_OVERLAPS)}")
    return boxes_froc(
        detections,
        ground_truth,
        protocol="box3d",
        sides=6,
        names=("volume", "lesion"),
        overlap=_OVERLAPS[overlap],
        iou_thr=iou_thr,
        settings={"overlap": overlap, "iou_thr": iou_thr},
        fp_rates=fp_rates,
        mean_rates=mean_rates,
    )
