"""Fast evaluation of operating points under many weightings of the scans."""

from __future__ import annotations

import numpy as np

from .matching import Matches
from .result import CurveRule

__all__ = ["StepCurve"]


class StepCurve:
    """Fast equivalent of :func:`froc_figures` for rules that use the upper ends of steps.

    Between two false positives, the curve rises vertically, and its upper end is used. The
    sensitivity at an operating point therefore follows from the number of hits before the first
    false positive beyond that point. The curve has slopes only if hits and false positives share a
    score.

    Args:
        matches: Matched detections and lesions.
        rule: A rule with ``upper`` and without an average precision.

    Raises:
        ValueError: The rule is another one.
    """

    def __init__(self, matches: Matches, rule: CurveRule) -> None:
        if not rule.upper or rule.with_ap:
            raise ValueError(f"{rule} cannot be used here; expected upper=True and with_ap=False")
        missing = np.flatnonzero(matches.misses)
        hit = np.sort(matches.lesion_hit_by[matches.lesion_hit_by >= 0])
        order = np.argsort(matches.lesion_hit_by, kind="stable")
        self._lesion_scans = matches.lesion_scans
        self._hit_scans = matches.lesion_scans[order[len(order) - len(hit) :]]
        self._miss_scans = matches.scans[missing]

        starts, ends = missing, missing + 1
        self._last_miss: np.ndarray | None = None
        if rule.by_score and len(missing):
            new = np.append(True, matches.scores[1:] != matches.scores[:-1])
            group = np.cumsum(new) - 1
            bounds = np.append(np.flatnonzero(new), len(new))
            last = np.flatnonzero(np.diff(group[missing], append=-1))
            starts, ends = bounds[group[missing[last]]], bounds[group[missing[last]] + 1]
            # Without false positives that share a score, no selection is needed.
            self._last_miss = None if len(last) == len(missing) else last
        everything = len(hit)
        self._hits_before = np.append(np.searchsorted(hit, starts), everything)
        self._hits_after = np.append(np.searchsorted(hit, ends), everything)
        # Without hits that share a false positive's score the curve has no slopes.
        self._sloped = bool((self._hits_before != self._hits_after).any())

    def read(self, weights: np.ndarray, fp_rates: np.ndarray) -> np.ndarray:
        """Compute sensitivities for weighted scans.

        Args:
            weights: How often each scan counts, integers, shape (num_scans,).
            fp_rates: Operating points, mean false positives per scan, shape (K,).

        Returns:
            Sensitivities, shape (K,); NaN if no lesion counts.
        """
        num_lesions = weights[self._lesion_scans].sum()
        if not num_lesions:
            return np.full(len(fp_rates), np.nan)
        num_scans = weights.sum()
        fps = np.cumsum(weights[self._miss_scans])
        if self._last_miss is not None:
            fps = fps[self._last_miss]
        hits = np.append(0, np.cumsum(weights[self._hit_scans]))
        # The largest number of false positives that does not exceed the operating point.
        most = np.floor(fp_rates * num_scans)
        most += (most + 1) / num_scans <= fp_rates
        most -= most / num_scans > fp_rates
        beyond = np.searchsorted(fps, most.astype(fps.dtype), side="right")
        low = hits[self._hits_before[beyond]] / num_lesions
        if not self._sloped:
            return low
        high = hits[self._hits_after[beyond]] / num_lesions
        ends = np.concatenate(([0], fps, [np.inf]))
        left, right = ends[beyond] / num_scans, ends[beyond + 1] / num_scans
        return low + (high - low) * np.maximum(fp_rates - left, 0) / (right - left)
