"""From matches to operating points: the part that all FROC protocols share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import interp1d

from .average_precision import average_precision
from .matching import Matches

__all__ = ["FROCCurve", "FROCResult", "froc_result", "sensitivity_at"]


@dataclass(frozen=True, eq=False)
class FROCCurve:
    """One point per detection, in descending order of score.

    Args:
        fps: ``(T,)`` mean false positives per scan, ascending.
        sensitivity: ``(T,)`` share of the lesions that are hit.
        thresholds: ``(T,)`` scores; a point holds when detections from its score on are kept.
    """

    fps: np.ndarray
    sensitivity: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True, eq=False)
class FROCResult:
    """What a protocol says of a detector.

    Args:
        protocol: Name of the protocol.
        settings: What else decided the figures (``iou_thr``, ``extrapolate``, ...).
        fp_rates: ``(K,)`` operating points, false positives per scan.
        sensitivity: ``(K,)`` one per operating point.
        mean_rates: Operating points whose mean is the headline.
        mean_sensitivity: The headline.
        ap: Average precision, None where the protocol has none.
        curve: The whole curve.
        counts: ``true_positives`` (lesions hit), ``false_positives``, ``false_negatives`` (lesions
            missed), ``doubles`` (hits on lesions that were hit before), ``detections``, ``scans``,
            ``lesions``.
        outside: Operating points that lie outside the curve, where the sensitivity is extrapolated
            or clamped.
    """

    protocol: str
    settings: dict[str, Any]
    fp_rates: np.ndarray
    sensitivity: np.ndarray
    mean_rates: tuple[float, ...]
    mean_sensitivity: float
    ap: float | None
    curve: FROCCurve
    counts: dict[str, int]
    outside: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Everything but the curve as plain JSON; undefined figures become None."""
        points = zip(self.fp_rates, self.sensitivity, strict=True)
        return {
            "protocol": self.protocol,
            "settings": dict(self.settings),
            "sensitivity": {f"{rate:g}": _json_number(value) for rate, value in points},
            "mean_rates": list(self.mean_rates),
            "mean_sensitivity": _json_number(self.mean_sensitivity),
            "ap": None if self.ap is None else _json_number(self.ap),
            "counts": dict(self.counts),
            "outside": list(self.outside),
        }


def _json_number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def sensitivity_at(
    fps: ArrayLike, sensitivity: ArrayLike, fp_rates: ArrayLike, *, extrapolate: bool
) -> np.ndarray:
    """Linear interpolation over an FROC curve as the published P3D evaluator does it.

    On a vertical step that lies exactly on an operating point the lower end is taken. Outside the
    curve ``extrapolate`` carries the outermost segment on, which is what the published evaluator
    does: the result may leave [0, 1], and is NaN or infinite where that segment is vertical.
    Without it the outermost sensitivity holds.

    Args:
        fps: ``(T,)`` false positives per scan, ascending.
        sensitivity: ``(T,)``.
        fp_rates: ``(K,)`` operating points.
        extrapolate: Carry the curve on beyond its ends.

    Returns:
        ``(K,)`` sensitivities; zeros where there is no curve (no detection at all).
    """
    fps = np.asarray(fps, dtype=np.float64)
    sensitivity = np.asarray(sensitivity, dtype=np.float64)
    fp_rates = np.asarray(fp_rates, dtype=np.float64)
    if not len(fps):
        return np.zeros(len(fp_rates))
    # A vertical outermost segment divides by zero, which the caller sees as NaN or infinity.
    with np.errstate(divide="ignore", invalid="ignore"):
        values = interp1d(fps, sensitivity, fill_value="extrapolate")(fp_rates)
    if not extrapolate:
        values = np.where(fp_rates > fps[-1], sensitivity[-1], values)
        values = np.where(fp_rates <= fps[0], sensitivity[0], values)
    return values


def froc_result(
    matches: Matches,
    *,
    protocol: str,
    settings: dict[str, Any],
    fp_rates: Sequence[float],
    mean_rates: Sequence[float],
    interpolate: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    with_ap: bool,
) -> FROCResult:
    """Curve, operating points and counts of matched detections.

    Args:
        matches: Detections and lesions.
        protocol: Name for the result.
        settings: Settings for the result.
        fp_rates: Operating points.
        mean_rates: The protocol's headline points; those among ``fp_rates`` are averaged, all of
            ``fp_rates`` where none is.
        interpolate: ``(fps, sensitivity, fp_rates) -> (K,)``.
        with_ap: Whether the protocol has an average precision, in which doubles count as false
            positives.

    Raises:
        ValueError: No scan, or operating points that are no positive numbers.
    """
    rates = np.asarray(fp_rates, dtype=np.float64)
    if rates.ndim != 1 or not len(rates) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ValueError(f"fp_rates is {fp_rates!r}; expected one or more positive numbers")
    if matches.num_scans < 1:
        raise ValueError("the ground truth holds no scan; expected one or more")

    num_lesions = len(matches.lesion_scans)
    hits = np.cumsum(matches.hits)
    misses = np.cumsum(matches.misses)
    doubles = np.cumsum(matches.doubles)
    with np.errstate(invalid="ignore"):
        # Without a lesion the sensitivity is undefined, not an error.
        sensitivity = hits / np.float64(num_lesions)
    fps = misses / matches.num_scans

    values = interpolate(fps, sensitivity, rates) if num_lesions else rates * np.nan
    ap = None
    if with_ap:
        precision = hits / np.maximum(hits + misses + doubles, np.finfo(np.float64).eps)
        ap = average_precision(sensitivity, precision) if num_lesions else float("nan")
    headline = np.isin(rates, np.asarray(mean_rates, dtype=np.float64))
    if not headline.any():
        headline[:] = True
    outside = (rates < fps[0]) | (rates > fps[-1]) if len(fps) else np.ones(len(rates), bool)
    true_positives = int(hits[-1]) if len(hits) else 0
    return FROCResult(
        protocol=protocol,
        settings=settings,
        fp_rates=rates,
        sensitivity=values,
        mean_rates=tuple(rates[headline].tolist()),
        mean_sensitivity=float(values[headline].mean()),
        ap=ap,
        curve=FROCCurve(fps, sensitivity, matches.scores),
        counts={
            "true_positives": true_positives,
            "false_positives": int(misses[-1]) if len(misses) else 0,
            "false_negatives": num_lesions - true_positives,
            "doubles": int(doubles[-1]) if len(doubles) else 0,
            "detections": len(matches.scores),
            "scans": matches.num_scans,
            "lesions": num_lesions,
        },
        outside=tuple(rates[outside].tolist()),
    )
