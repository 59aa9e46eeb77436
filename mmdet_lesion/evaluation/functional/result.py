"""FROC curves, operating points and counts of matches, shared by all protocols."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, SupportsFloat

import numpy as np
from numpy.typing import ArrayLike

from .average_precision import average_precision
from .matching import Matches

__all__ = [
    "CurveRule",
    "FROCCurve",
    "FROCResult",
    "froc_figures",
    "froc_result",
    "json_number",
    "sensitivity_at",
]


@dataclass(frozen=True)
class CurveRule:
    """Rule of a protocol for building a curve from ranked detections and interpolating it.

    Args:
        by_score: Whether there is one point for every distinct score and one at (0, 0), as in a
            ROC curve, instead of one point for every detection.
        upper: Whether to use the upper end of a vertical step that lies exactly on an operating
            point, instead of the lower end.
        extrapolate: Whether to extend the outermost segments, instead of using the outermost
            sensitivity.
        with_ap: Whether to compute an average precision, in which duplicates are false positives.
    """

    by_score: bool = False
    upper: bool = True
    extrapolate: bool = False
    with_ap: bool = False

    def read(self, fps: np.ndarray, sensitivity: np.ndarray, fp_rates: np.ndarray) -> np.ndarray:
        """Interpolate the sensitivities at K operating points; zeros if the curve is empty."""
        if not len(fps):
            return np.zeros(len(fp_rates))
        if self.upper:
            return np.interp(fp_rates, fps, sensitivity)
        return sensitivity_at(fps, sensitivity, fp_rates, extrapolate=self.extrapolate)


@dataclass(frozen=True, eq=False)
class FROCCurve:
    """FROC curve with one point per detection (or distinct score), in descending order of score.

    Args:
        fps: Mean false positives per scan, ascending, shape (T,).
        sensitivity: Fraction of the lesions that are hit, shape (T,).
        thresholds: Minimum score of the detections that a point counts, shape (T,).
    """

    fps: np.ndarray
    sensitivity: np.ndarray
    thresholds: np.ndarray


@dataclass(frozen=True, eq=False)
class FROCResult:
    """Metrics of a detector under a protocol.

    Args:
        protocol: Name of the protocol.
        settings: Settings of the protocol (``iou_thr``, ``extrapolate`` …).
        fp_rates: Operating points, mean false positives per scan, shape (K,).
        sensitivity: Sensitivities at the operating points, shape (K,).
        mean_rates: Operating points whose sensitivities are averaged.
        mean_sensitivity: Mean sensitivity at ``mean_rates``.
        ap: Average precision, or None if the protocol has none.
        curve: The FROC curve.
        counts: ``true_positives`` (lesions hit), ``false_positives``, ``false_negatives`` (lesions
            missed), ``ignored`` (neither hits nor false positives), ``duplicates`` (hits on lesions
            that were hit before), ``detections``, ``scans``, ``lesions``.
        outside: Operating points that lie outside the curve, where the sensitivity is extrapolated
            or clamped.
        matches: Matched detections and lesions.
        rule: Rule of the curve.
        scans: Names of the scans, in the order of their indices in ``matches``.
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
    matches: Matches
    rule: CurveRule
    scans: tuple[Hashable, ...]

    def to_dict(self) -> dict[str, Any]:
        """Convert the metrics, without the curve, to plain JSON; undefined ones become None."""
        points = zip(self.fp_rates, self.sensitivity, strict=True)
        # The LUNA16 challenge calls the mean CPM.
        cpm = {"cpm": json_number(self.mean_sensitivity)} if self.protocol == "luna16" else {}
        return cpm | {
            "protocol": self.protocol,
            "settings": dict(self.settings),
            "sensitivity": {f"{rate:g}": json_number(value) for rate, value in points},
            "mean_rates": list(self.mean_rates),
            "mean_sensitivity": json_number(self.mean_sensitivity),
            "ap": None if self.ap is None else json_number(self.ap),
            "counts": dict(self.counts),
            "outside": list(self.outside),
        }


def json_number(value: SupportsFloat) -> float | None:
    """Convert a number for JSON: NaN and infinity become None."""
    return float(value) if math.isfinite(value) else None


def sensitivity_at(
    fps: ArrayLike, sensitivity: ArrayLike, fp_rates: ArrayLike, *, extrapolate: bool
) -> np.ndarray:
    """Interpolate an FROC curve linearly, as in the published P3D evaluator.

    At a vertical step that lies exactly on an operating point, the lower end is used.

    Args:
        fps: Mean false positives per scan, ascending, shape (T,).
        sensitivity: Sensitivities, shape (T,).
        fp_rates: Operating points, shape (K,).
        extrapolate: Whether to extend the outermost segments, as in the published evaluator. The
            result may then be outside [0, 1], and is NaN or infinite if the segment is vertical.
            Otherwise, the outermost sensitivity is used.

    Returns:
        Sensitivities, shape (K,); zeros if the curve is empty (no detection at all).
    """
    fps = np.asarray(fps, dtype=np.float64)
    sensitivity = np.asarray(sensitivity, dtype=np.float64)
    fp_rates = np.asarray(fp_rates, dtype=np.float64)
    if not len(fps):
        return np.zeros(len(fp_rates))
    # A vertical outermost segment results in a division by zero. The order of operations is that of
    # scipy's interp1d, which the published evaluator calls.
    with np.errstate(divide="ignore", invalid="ignore"):
        upper = np.searchsorted(fps, fp_rates).clip(1, len(fps) - 1)
        lower = upper - 1
        slope = (sensitivity[upper] - sensitivity[lower]) / (fps[upper] - fps[lower])
        values = slope * (fp_rates - fps[lower]) + sensitivity[lower]
    if not extrapolate:
        values = np.where(fp_rates > fps[-1], sensitivity[-1], values)
        values = np.where(fp_rates <= fps[0], sensitivity[0], values)
    return values


def froc_figures(
    matches: Matches,
    rule: CurveRule,
    fp_rates: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    finite: bool = False,
) -> tuple[np.ndarray, float | None]:
    """Compute the sensitivities at operating points, and the average precision.

    Args:
        matches: Matched detections and lesions.
        rule: Rule of the protocol.
        fp_rates: Operating points, shape (K,).
        weights: How often each scan counts, shape (num_scans,); by default once.
        finite: Whether to use the outermost sensitivity if extrapolation is undefined.

    Returns:
        Sensitivities, shape (K,), and the AP, or None if the rule has none. NaN if no lesion
        counts.
    """
    curve, precision = _weighted(matches, rule, weights)
    num_lesions = _num_lesions(matches, weights)
    values, ap = _read(curve, precision, rule, fp_rates, num_lesions)
    if finite and num_lesions and not np.isfinite(values).all():
        held = replace(rule, extrapolate=False).read(curve.fps, curve.sensitivity, fp_rates)
        values = np.where(np.isfinite(values), values, held)
    return values, ap


def _read(
    curve: FROCCurve,
    precision: np.ndarray | None,
    rule: CurveRule,
    fp_rates: np.ndarray,
    num_lesions: int,
) -> tuple[np.ndarray, float | None]:
    """Compute the sensitivities at the operating points, and the AP, of a curve."""
    if not num_lesions:
        return fp_rates * np.nan, float("nan") if rule.with_ap else None
    ap = None if precision is None else average_precision(curve.sensitivity, precision)
    return rule.read(curve.fps, curve.sensitivity, fp_rates), ap


def _num_lesions(matches: Matches, weights: np.ndarray | None) -> int:
    if weights is None:
        return len(matches.lesion_scans)
    return int(weights[matches.lesion_scans].sum())


def _weighted(
    matches: Matches, rule: CurveRule, weights: np.ndarray | None
) -> tuple[FROCCurve, np.ndarray | None]:
    """Compute the curve and, for a rule with AP, the precision at its points.

    False positives are counted as integers and divided by the number of scans at the end, so that
    vertical steps on operating points are exact for any number of scans. The sensitivity is NaN if
    no lesion counts.
    """
    scores, counts = matches.scores, [matches.hits, matches.misses]
    if rule.with_ap:
        counts.append(matches.duplicates)
    num_scans = matches.num_scans
    if weights is not None:
        factor = weights[matches.scans]
        # Detections of scans that were not drawn are not points of the curve.
        drawn = np.flatnonzero(factor)
        factor, scores = factor[drawn], scores[drawn]
        counts = [count[drawn] * factor for count in counts]
        num_scans = int(weights.sum())
    hits, misses, *duplicates = (np.cumsum(count) for count in counts)
    with np.errstate(invalid="ignore"):
        # Without lesions, the sensitivity is NaN.
        sensitivity = hits / np.float64(_num_lesions(matches, weights))
    precision = None
    if rule.with_ap:
        precision = hits / np.maximum(hits + misses + duplicates[0], np.finfo(np.float64).eps)
    fps = misses / num_scans
    if rule.by_score and len(scores):
        last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
        fps, sensitivity = np.append(0.0, fps[last]), np.append(0.0, sensitivity[last])
        scores = np.append(np.inf, scores[last])
    return FROCCurve(fps, sensitivity, scores), precision


def froc_result(
    matches: Matches,
    *,
    protocol: str,
    settings: dict[str, Any],
    fp_rates: ArrayLike,
    mean_rates: ArrayLike,
    rule: CurveRule,
    scans: Sequence[Hashable],
) -> FROCResult:
    """Compute the curve, the operating points and the counts of matched detections.

    Args:
        matches: Matched detections and lesions.
        protocol: Name of the protocol.
        settings: Settings of the protocol.
        fp_rates: Operating points, mean false positives per scan.
        mean_rates: Operating points whose sensitivities are averaged. If none of them is in
            ``fp_rates``, all sensitivities are averaged.
        rule: Rule of the protocol.
        scans: Names of the scans.

    Raises:
        ValueError: There is no scan, or the operating points are not positive numbers.
    """
    rates = np.asarray(fp_rates, dtype=np.float64)
    if rates.ndim != 1 or not len(rates) or not (np.isfinite(rates) & (rates > 0)).all():
        raise ValueError(f"fp_rates is {fp_rates!r}; expected one or more positive numbers")
    if matches.num_scans < 1:
        raise ValueError("the ground truth contains no scan; expected one or more")
    curve, precision = _weighted(matches, rule, None)
    num_lesions = len(matches.lesion_scans)
    values, ap = _read(curve, precision, rule, rates, num_lesions)
    averaged = np.isin(rates, np.asarray(mean_rates, dtype=np.float64))
    if not averaged.any():
        averaged[:] = True
    fps = curve.fps
    outside = (rates < fps[0]) | (rates > fps[-1]) if len(fps) else np.ones(len(rates), bool)
    true_positives = int(matches.hits.sum())
    return FROCResult(
        protocol=protocol,
        settings=settings,
        fp_rates=rates,
        sensitivity=values,
        mean_rates=tuple(rates[averaged].tolist()),
        mean_sensitivity=float(values[averaged].mean()),
        ap=ap,
        curve=curve,
        counts={
            "true_positives": true_positives,
            "false_positives": int(np.count_nonzero(matches.misses)),
            "false_negatives": num_lesions - true_positives,
            "ignored": matches.ignored,
            "duplicates": int(matches.duplicates.sum()),
            "detections": len(matches.scores),
            "scans": matches.num_scans,
            "lesions": num_lesions,
        },
        outside=tuple(rates[outside].tolist()),
        matches=matches,
        rule=rule,
        scans=tuple(scans),
    )
