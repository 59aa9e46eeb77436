"""3D boxes against 3D lesion boxes of sub-volumes: the manual 1K set of DeepLesion.

Yan et al., "Learning from multiple datasets with heterogeneous and partial labels for universal
lesion detection in CT", TMI 2020, and the evaluation code that the authors published with the set.
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

    A box hits every lesion of its sub-volume that it overlaps enough; a lesion that is hit again
    counts neither way. Volumes count voxels inclusively on all three axes. Sensitivities are
    interpolated as published: the upper end of a vertical step, the last sensitivity to the right
    of the curve, and 0 to its left (which a curve has only before its first false positive).

    Args:
        detections: ``{volume: (n, 7)}`` rows ``[x1, y1, z1, x2, y2, z2, score]`` in published
            coordinates; volumes may be absent.
        ground_truth: ``{volume: (m, 6 or more)}`` rows ``[x1, y1, z1, x2, y2, z2, ...]``; volumes
            without a lesion count too.
        overlap: ``'iobb'``, intersection over the detected box, or ``'iou'``.
        iou_thr: Minimum overlap of a hit.
        fp_rates: Operating points, mean false positives per sub-volume.
        mean_rates: Those of ``fp_rates`` whose sensitivities are averaged.

    Returns:
        Operating points (zeros without any detection, NaN without any lesion), curve, counts.

    Raises:
        ValueError: An unknown overlap, no volume, a detection in a volume that the ground truth
            lacks, rows of a wrong length, a value that is not finite.
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
