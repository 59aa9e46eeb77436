"""Bootstrap confidence intervals for FROC metrics, resampling scans or groups of them.

A round draws as many scans as there are, with replacement, and weights every scan by how often it
was drawn; detections are not matched again. Source: Efron & Tibshirani, "An Introduction to the
Bootstrap", 1993 (percentile intervals), and the evaluation script of the LUNA16 challenge.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .result import FROCResult, froc_figures, json_number
from .step_curve import StepCurve

__all__ = [
    "Band",
    "Bootstrap",
    "Comparison",
    "bootstrap_froc",
    "compare_froc",
    "compare_trainings",
]

# A mean of figures is zero up to rounding.
_ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class Band:
    """Mean and percentile interval of a metric over the bootstrap rounds.

    Args:
        mean: A number, or one per operating point.
        low: Lower end.
        high: Upper end.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray, confidence: float) -> Band:
        """Mean and percentiles over the first axis; NaN without any sample.

        Args:
            samples: ``(R,)`` or ``(R, K)``.
            confidence: Share of the samples between the ends.
        """
        if not len(samples):
            undefined = np.full(samples.shape[1:], np.nan)
            return cls(undefined, undefined, undefined)
        ordered = np.sort(samples, axis=0)
        tail = (1.0 - confidence) / 2.0
        low, high = (math.floor(share * len(samples)) for share in (tail, 1.0 - tail))
        return cls(samples.mean(axis=0), ordered[low], ordered[min(high, len(samples) - 1)])

    def to_dict(self) -> dict[str, float | None]:
        """A single figure's band as plain JSON."""
        return {key: json_number(getattr(self, key)) for key in ("mean", "low", "high")}

    def by_rate(self, fp_rates: np.ndarray) -> dict[str, dict[str, float | None]]:
        """Bands by operating point as plain JSON."""
        columns = zip(fp_rates, self.mean, self.low, self.high, strict=True)
        return {f"{rate:g}": Band(*band).to_dict() for rate, *band in columns}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Confidence bands of a protocol's metrics.

    Args:
        rounds: Number of rounds.
        undefined: Rounds without any lesion, which are left out of the bands.
        confidence: Share of the rounds inside a band.
        fp_rates: ``(K,)`` operating points.
        sensitivity: Band ``(K,)`` of the sensitivities.
        mean_sensitivity: Band of the headline.
        ap: Band of the average precision, None where the protocol has none.
        curve_rates: ``(G,)`` false positives per scan at which the curve was evaluated.
        curve: Band ``(G,)`` of the curve.
    """

    rounds: int
    undefined: int
    confidence: float
    fp_rates: np.ndarray
    sensitivity: Band
    mean_sensitivity: Band
    ap: Band | None
    curve_rates: np.ndarray
    curve: Band

    def to_dict(self) -> dict[str, Any]:
        """All bands but the curve's as plain JSON."""
        return {
            "rounds": self.rounds,
            "undefined": self.undefined,
            "confidence": self.confidence,
            "sensitivity": self.sensitivity.by_rate(self.fp_rates),
            "mean_sensitivity": self.mean_sensitivity.to_dict(),
            "ap": None if self.ap is None else self.ap.to_dict(),
        }


@dataclass(frozen=True, eq=False)
class Difference:
    """Difference of the second detector to the first on the same scans.

    Args:
        value: The difference of the two figures on all scans.
        band: Its band over the rounds, in which both see the same scans.
        p_value: Two-sided: twice the smaller share of rounds in which the difference is at most or
            at least zero, the observed one counted as a round.
    """

    value: np.ndarray
    band: Band
    p_value: np.ndarray

    @classmethod
    def of(cls, value: ArrayLike, samples: np.ndarray, confidence: float) -> Difference:
        """Band and p-value of differences ``(R,)`` or ``(R, K)``."""
        below, above = samples <= _ZERO, samples >= -_ZERO
        tails = np.minimum(below.sum(axis=0), above.sum(axis=0))
        p_value = np.minimum(2 * (tails + 1) / (len(samples) + 1), 1.0)
        return cls(np.asarray(value), Band.of(samples, confidence), p_value)

    def to_dict(self) -> dict[str, float | None]:
        """A single difference as plain JSON."""
        numbers = {"difference": json_number(self.value), "p_value": json_number(self.p_value)}
        return numbers | self.band.to_dict()


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired differences between two detectors' figures, second less first.

    Args:
        rounds: Number of rounds.
        undefined: Rounds without any lesion, which are left out of the bands.
        confidence: Share of the rounds inside a band.
        fp_rates: ``(K,)`` operating points.
        sensitivity: Differences ``(K,)`` of the sensitivities.
        mean_sensitivity: Difference of the headline.
        ap: Difference of the average precision, None where the protocol has none.
    """

    rounds: int
    undefined: int
    confidence: float
    fp_rates: np.ndarray
    sensitivity: Difference
    mean_sensitivity: Difference
    ap: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        points = self.sensitivity
        bands = zip(points.band.mean, points.band.low, points.band.high, strict=True)
        columns = zip(self.fp_rates, points.value, bands, points.p_value, strict=True)
        return {
            "rounds": self.rounds,
            "undefined": self.undefined,
            "confidence": self.confidence,
            "sensitivity": {
                f"{rate:g}": Difference(value, Band(*band), p_value).to_dict()
                for rate, value, band, p_value in columns
            },
            "mean_sensitivity": self.mean_sensitivity.to_dict(),
            "ap": None if self.ap is None else self.ap.to_dict(),
        }


def bootstrap_froc(
    result: FROCResult,
    rounds: int = 1000,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
    curve_rates: ArrayLike = (),
) -> Bootstrap:
    """Means and bands of a protocol's figures over resampled scans.

    The denominator of a round's sensitivity is the number of lesions in the scans that it drew.
    Where extrapolation is undefined in a round (a curve that ends in a vertical step), the
    outermost sensitivity holds.

    Args:
        result: What a protocol said of a detector.
        rounds: Rounds.
        groups: ``(num_scans,)`` label of each scan's group, in the order of ``result.scans``; whole
            groups are drawn then, such as all scans of a patient.
        confidence: Share of the rounds inside a band.
        seed: The same seed draws the same scans.
        curve_rates: ``(G,)`` false positives per scan at which to follow the curve.

    Returns:
        Means and bands.

    Raises:
        ValueError: No round, a confidence outside (0, 1), not one group per scan.
    """
    curve_rates = np.asarray(curve_rates, dtype=np.float64)
    samples = _Samples.draw([result], rounds, groups, confidence, seed, curve_rates)
    ((points, aps, curves),) = samples.figures
    return Bootstrap(
        rounds=rounds,
        undefined=samples.undefined,
        confidence=confidence,
        fp_rates=result.fp_rates,
        sensitivity=Band.of(points, confidence),
        mean_sensitivity=Band.of(_headline(result, points), confidence),
        ap=None if result.ap is None else Band.of(aps, confidence),
        curve_rates=curve_rates,
        curve=Band.of(curves, confidence),
    )


def compare_froc(
    first: FROCResult,
    second: FROCResult,
    rounds: int = 1000,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Paired differences, second less first: both detectors are judged on the same drawn scans.

    Args:
        first: What a protocol said of one detector.
        second: What it said of the other one, on the same scans and lesions.
        rounds: Rounds.
        groups: As for :func:`bootstrap_froc`.
        confidence: Share of the rounds inside a band.
        seed: The same seed draws the same scans.

    Returns:
        Differences, their bands and p-values.

    Raises:
        ValueError: The two differ in protocol, settings, operating points, scans or lesions; or as
            for :func:`bootstrap_froc`.
    """
    return _compare([(first, second)], rounds, groups, confidence, seed, resample=False)


def compare_trainings(
    pairs: Sequence[tuple[FROCResult, FROCResult]],
    rounds: int = 1000,
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Mean paired difference over several trainings, with the chance of training and of scans.

    A round draws as many trainings as there are, with replacement, and for each of them the scans
    that it was tested on; both detectors of a training are judged on the same scans.

    Args:
        pairs: For each training what a protocol said of the first and of the second detector. The
            trainings may have scans of their own.
        rounds: Rounds.
        confidence: Share of the rounds inside a band.
        seed: The same seed draws the same trainings and scans.

    Returns:
        Mean differences, second less first, their bands and p-values.

    Raises:
        ValueError: No pair; or as for :func:`compare_froc`.
    """
    if not pairs:
        raise ValueError("there is no pair of results to compare; expected one or more")
    return _compare(pairs, rounds, None, confidence, seed, resample=True)


def _compare(
    pairs: Sequence[tuple[FROCResult, FROCResult]],
    rounds: int,
    groups: Sequence[Hashable] | None,
    confidence: float,
    seed: int,
    resample: bool,
) -> Comparison:
    for first, second in pairs:
        _check_comparable(first, second)
    drawn = [
        _Samples.draw(pair, rounds, groups, confidence, seed + index, np.empty(0))
        for index, pair in enumerate(pairs)
    ]
    # (T, R, K + 2): points, headline and AP of each training's rounds, second less first.
    samples = []
    for (first, second), sample in zip(pairs, drawn, strict=True):
        (points, aps, _), (other_points, other_aps, _) = sample.figures
        headlines = _headline(second, other_points) - _headline(first, points)
        samples.append(np.column_stack((other_points - points, headlines, other_aps - aps)))
    count = min(map(len, samples))
    stacked = np.stack([sample[:count] for sample in samples])
    if resample:
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(pairs), size=(count, len(pairs)))
        # A training that is drawn twice in a round draws its scans anew.
        shuffled = np.stack([rng.permutation(count) for _ in pairs], axis=1)
        stacked = stacked[chosen.T, shuffled.T]
    means = stacked.mean(axis=0)
    first, second = pairs[0]

    def mean_of(figure: Callable[[FROCResult], Any]) -> np.ndarray:
        return np.mean([figure(two) - figure(one) for one, two in pairs], axis=0)

    ap = None
    if first.ap is not None and second.ap is not None:
        ap = Difference.of(mean_of(lambda result: result.ap), means[:, -1], confidence)
    return Comparison(
        rounds=rounds,
        undefined=rounds - count,
        confidence=confidence,
        fp_rates=first.fp_rates,
        sensitivity=Difference.of(
            mean_of(lambda result: result.sensitivity), means[:, :-2], confidence
        ),
        mean_sensitivity=Difference.of(
            mean_of(lambda result: result.mean_sensitivity), means[:, -2], confidence
        ),
        ap=ap,
    )


def _check_comparable(first: FROCResult, second: FROCResult) -> None:
    for what, one, other in (
        ("protocol", first.protocol, second.protocol),
        ("settings", first.settings, second.settings),
        ("fp_rates", first.fp_rates.tolist(), second.fp_rates.tolist()),
        ("mean_rates", first.mean_rates, second.mean_rates),
        ("scans", first.scans, second.scans),
        ("lesions", first.counts["lesions"], second.counts["lesions"]),
    ):
        if one != other:
            found = "other scans" if what == "scans" else f"the {what} {one!r} and {other!r}"
            raise ValueError(f"the results to compare have {found}; expected the same {what}")


@dataclass(frozen=True, eq=False)
class _Samples:
    """``(R, K)`` sensitivities, ``(R,)`` APs and ``(R, G)`` curve points of every detector."""

    figures: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
    undefined: int

    @classmethod
    def draw(
        cls,
        results: Sequence[FROCResult],
        rounds: int,
        groups: Sequence[Hashable] | None,
        confidence: float,
        seed: int,
        curve_rates: np.ndarray,
    ) -> _Samples:
        if rounds < 1:
            raise ValueError(f"rounds is {rounds}; expected 1 or more")
        if not 0 < confidence < 1:
            raise ValueError(f"confidence is {confidence}; expected a number between 0 and 1")
        group_of_scan = _group_numbers(groups, results[0].matches.num_scans)
        num_groups = int(group_of_scan.max()) + 1
        rng = np.random.default_rng(seed)
        rates = np.concatenate((results[0].fp_rates, curve_rates))
        points = np.full((len(results), rounds, len(rates)), np.nan)
        aps = np.full((len(results), rounds), np.nan)
        readers = [_reader(result) for result in results]
        for number in range(rounds):
            drawn = np.bincount(rng.integers(num_groups, size=num_groups), minlength=num_groups)
            weights = drawn[group_of_scan]
            for i, read in enumerate(readers):
                points[i, number], aps[i, number] = read(weights, rates)
        defined = ~np.isnan(points[0, :, 0])
        num_points = len(results[0].fp_rates)
        figures = [
            (points[i, defined, :num_points], aps[i, defined], points[i, defined, num_points:])
            for i in range(len(results))
        ]
        return cls(figures, int(np.count_nonzero(~defined)))


def _reader(result: FROCResult) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]:
    """``(weights, fp_rates) -> sensitivities, AP or NaN``."""
    matches, rule = result.matches, result.rule
    if rule.upper and not rule.with_ap:
        curve = StepCurve(matches, rule)
        return lambda weights, rates: (curve.read(weights, rates), float("nan"))

    def read(weights: np.ndarray, rates: np.ndarray) -> tuple[np.ndarray, float]:
        points, ap = froc_figures(matches, rule, rates, weights, finite=True)
        return points, float("nan") if ap is None else ap

    return read


def _group_numbers(groups: Sequence[Hashable] | None, num_scans: int) -> np.ndarray:
    if groups is None:
        return np.arange(num_scans)
    if len(groups) != num_scans:
        raise ValueError(f"there are {len(groups)} groups for {num_scans} scans; expected one each")
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(group, len(numbers)) for group in groups])


def _headline(result: FROCResult, points: np.ndarray) -> np.ndarray:
    return points[:, np.isin(result.fp_rates, result.mean_rates)].mean(axis=1)
