"""FROC of the LUNA16 challenge, in which detections are matched to nodules by distance.

Source: Setio et al., "Validation, comparison, and combination of algorithms for automatic detection
of pulmonary nodules in computed tomography images: the LUNA16 challenge", MedIA 2017, and the
challenge's evaluation script.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import numpy as np

from .matching import Rows, match_detections, pairs_on_same_place
from .result import CurveRule, FROCResult, froc_result

__all__ = ["LUNA16_FP_RATES", "luna16_froc"]

LUNA16_FP_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
# A negative diameter is unknown; the published script uses this one.
_UNKNOWN_DIAMETER = 10.0
_LESION_ROW = "x, y, z, diameter"


def luna16_froc(
    detections: Mapping[Hashable, Rows],
    ground_truth: Mapping[Hashable, Rows],
    excluded: Mapping[Hashable, Rows] | None = None,
    *,
    series: Collection[Hashable] | None = None,
    max_detections: int | None = 100,
    fp_rates: Sequence[float] = LUNA16_FP_RATES,
    mean_rates: Sequence[float] = LUNA16_FP_RATES,
) -> FROCResult:
    """Compute the FROC over scans; the mean sensitivity is the CPM.

    A detection hits every nodule whose center is less than the nodule's radius away. Of the
    detections that hit a nodule, the one with the highest probability counts; the others are
    neither true nor false positives. The same holds for detections that hit no nodule but lie in an
    excluded finding. The curve starts at (0, 0) and has one point per distinct probability. At a
    vertical step on an operating point, the upper end is used; false positives are counted as
    integers, so that this does not depend on rounding. Beyond the curve, the last sensitivity is
    used.

    Args:
        detections: Rows ``[x, y, z, probability]`` in world mm by series, each array of shape
            (n, 4). Series may be absent.
        ground_truth: Rows ``[x, y, z, diameter]`` in world mm by series, each array of shape
            (m, 4). Series without a nodule may be absent if they are in ``series``.
        excluded: Irrelevant findings in the format of ``ground_truth``; a negative diameter stands
            for 10 mm.
        series: Scans to evaluate, with or without nodules, by default the keys of
            ``ground_truth``. Nodules and findings of other scans are dropped.
        max_detections: Limit per scan. A scan with more detections keeps those with a higher
            probability than the first one beyond the limit. None keeps all.
        fp_rates: Operating points, mean false positives per scan.
        mean_rates: Operating points whose sensitivities are averaged.

    Returns:
        The result. Sensitivities are 0 without any detection and NaN without any nodule.
        Detections dropped by ``max_detections`` are not counted.

    Raises:
        ValueError: There is no scan, a scan is listed twice, detections are in another scan, or
            rows have a wrong length or values that are not finite.
    """
    names = list(ground_truth if series is None else series)
    known = set(names)
    if len(known) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise ValueError(f"series contains {twice!r} twice; expected every scan once")
    unknown = [key for key, rows in detections.items() if len(rows) and key not in known]
    if unknown:
        raise ValueError(
            f"detections contain {len(unknown)} series that are not among the scans, first "
            f"{unknown[0]!r}; expected only listed scans"
        )
    if max_detections is not None and max_detections < 1:
        raise ValueError(f"max_detections is {max_detections}; expected 1 or more, or None")
    scans, found = _flatten(detections, names, "detections", "x, y, z, probability")
    if max_detections is not None:
        kept = _most_probable(scans, found[:, 3], max_detections)
        scans, found = scans[kept], found[kept]
    nodule_scans, nodules = _flatten(ground_truth, names, "nodules", _LESION_ROW)
    finding_scans, findings = _flatten(excluded or {}, names, "excluded findings", _LESION_ROW)

    ignored = np.zeros(len(found), dtype=bool)
    ignored[_inside(scans, found, finding_scans, findings)[0]] = True
    matches = match_detections(
        found[:, 3],
        scans,
        _inside(scans, found, nodule_scans, nodules),
        nodule_scans,
        len(names),
        ignored,
    )
    return froc_result(
        matches,
        protocol="luna16",
        settings={"max_detections": max_detections},
        fp_rates=fp_rates,
        mean_rates=mean_rates,
        rule=CurveRule(by_score=True),
        scans=names,
    )


def _flatten(
    rows_of: Mapping[Hashable, Rows], names: Sequence[Hashable], what: str, row: str
) -> tuple[np.ndarray, np.ndarray]:
    """Concatenate the rows of the named scans; returns scan numbers (N,) and rows (N, 4)."""
    arrays = []
    for name in names:
        try:
            array = np.asarray(rows_of.get(name, ()), dtype=np.float64)
        except (TypeError, ValueError):
            array = np.empty(1)
        if array.size == 0:
            array = np.empty((0, 4))
        if array.ndim != 2 or array.shape[1] != 4:
            raise ValueError(
                f"{what} of {name!r} are malformed; expected rows of four numbers ({row})"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{what} of {name!r} contain NaN or infinity; expected finite numbers")
        arrays.append(array)
    scans = np.repeat(np.arange(len(names)), [len(array) for array in arrays])
    return scans, np.concatenate([*arrays, np.empty((0, 4))])


def _most_probable(scans: np.ndarray, probabilities: np.ndarray, max_detections: int) -> np.ndarray:
    """Return a mask (N,) of the most probable detections of every scan."""
    kept = np.ones(len(scans), dtype=bool)
    for scan in np.flatnonzero(np.bincount(scans) > max_detections):
        own = np.flatnonzero(scans == scan)
        first_out = np.sort(probabilities[own])[-max_detections - 1]
        kept[own] = probabilities[own] > first_out
    return kept


def _inside(
    scans: np.ndarray, points: np.ndarray, lesion_scans: np.ndarray, lesions: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of detections and nodules or findings that they lie strictly inside."""
    point, lesion = pairs_on_same_place(scans, lesion_scans)
    offset = points[point, :3] - lesions[lesion, :3]
    diameter = lesions[:, 3]
    radius = np.where(diameter < 0, _UNKNOWN_DIAMETER, diameter) / 2
    hit = np.sum(offset**2, axis=1) < (radius**2)[lesion]
    return point[hit], lesion[hit]
