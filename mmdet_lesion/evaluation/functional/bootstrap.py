"""Bootstrap confidence intervals for FROC metrics, with resampled scans or groups of scans.

In a round, all scans are resampled with replacement and weighted by how often they were drawn;
detections are not matched again.

Source: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993 (percentile intervals), and
the evaluation script of the LUNA16 challenge.
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

# Differences of means are zero up to rounding.
_ZERO = 1e-12


@dataclass(frozen=True, eq=False)
class Band:
    """Mean and percentile interval of a metric over the bootstrap rounds.

    Args:
        mean: Mean, a number or one per operating point.
        low: Lower end of the interval.
        high: Upper end of the interval.
    """

    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, samples: np.ndarray, confidence: float) -> Band:
        """Compute mean and percentiles over the first axis; NaN without samples.

        Args:
            samples: Metrics of the rounds, shape (R,) or (R, K).
            confidence: Fraction of the samples inside the interval.
        """
        if not len(samples):
            undefined = np.full(samples.shape[1:], np.nan)
            return cls(undefined, undefined, undefined)
        ordered = np.sort(samples, axis=0)
        tail = (1.0 - confidence) / 2.0
        low, high = (math.floor(share * len(samples)) for share in (tail, 1.0 - tail))
        return cls(samples.mean(axis=0), ordered[low], ordered[min(high, len(samples) - 1)])

    def to_dict(self) -> dict[str, float | None]:
        """Convert the band of a single metric for JSON."""
        return {key: json_number(getattr(self, key)) for key in ("mean", "low", "high")}

    def by_rate(self, fp_rates: np.ndarray) -> dict[str, dict[str, float | None]]:
        """Convert bands for JSON, by operating point."""
        columns = zip(fp_rates, self.mean, self.low, self.high, strict=True)
        return {f"{rate:g}": Band(*band).to_dict() for rate, *band in columns}


@dataclass(frozen=True, eq=False)
class Bootstrap:
    """Confidence bands of a protocol's metrics.

    Args:
        rounds: Number of rounds.
        undefined: Number of rounds without any lesion, which the bands do not include.
        confidence: Fraction of the rounds inside a band.
        fp_rates: Operating points, shape (K,).
        sensitivity: Band of the sensitivities, shape (K,).
        mean_sensitivity: Band of the mean sensitivity.
        ap: Band of the average precision, or None if the protocol has none.
        curve_rates: False positives per scan at which the curve was evaluated, shape (G,).
        curve: Band of the curve, shape (G,).
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
        """Convert all bands except the curve's for JSON."""
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
    """Difference of a metric between two detectors on the same scans, second minus first.

    Args:
        value: Difference on all scans.
        band: Band of the difference over the rounds, in which both have the same scans.
        p_value: Two-sided p-value: twice the smaller fraction of rounds in which the difference is
            ≤ 0 or ≥ 0, with the observed difference counted as a round.
    """

    value: np.ndarray
    band: Band
    p_value: np.ndarray

    @classmethod
    def of(cls, value: ArrayLike, samples: np.ndarray, confidence: float) -> Difference:
        """Compute band and p-value of sampled differences, shape (R,) or (R, K)."""
        below, above = samples <= _ZERO, samples >= -_ZERO
        tails = np.minimum(below.sum(axis=0), above.sum(axis=0))
        p_value = np.minimum(2 * (tails + 1) / (len(samples) + 1), 1.0)
        return cls(np.asarray(value), Band.of(samples, confidence), p_value)

    def to_dict(self) -> dict[str, float | None]:
        """Convert a single difference for JSON."""
        numbers = {"difference": json_number(self.value), "p_value": json_number(self.p_value)}
        return numbers | self.band.to_dict()


@dataclass(frozen=True, eq=False)
class Comparison:
    """Paired differences between the metrics of two detectors, second minus first.

    Args:
        rounds: Number of rounds.
        undefined: Number of rounds without any lesion, which the bands do not include.
        confidence: Fraction of the rounds inside a band.
        fp_rates: Operating points, shape (K,).
        sensitivity: Differences of the sensitivities, shape (K,).
        mean_sensitivity: Difference of the mean sensitivities.
        ap: Difference of the average precisions, or None if the protocol has none.
    """

    rounds: int
    undefined: int
    confidence: float
    fp_rates: np.ndarray
    sensitivity: Difference
    mean_sensitivity: Difference
    ap: Difference | None

    def to_dict(self) -> dict[str, Any]:
        """Convert all differences for JSON."""
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
    """Compute confidence bands of a detector's metrics over resampled scans.

    The denominator of the sensitivity is the number of lesions in the scans of the round. If
    extrapolation is undefined in a round (the curve ends in a vertical step), the outermost
    sensitivity is used.

    Args:
        result: Result of a protocol.
        rounds: Number of rounds.
        groups: Group of each scan, such as its patient, in the order of ``result.scans``, shape
            (num_scans,). Groups are resampled as a whole. By default, each scan is a group.
        confidence: Fraction of the rounds inside a band.
        seed: Seed of the resampling.
        curve_rates: False positives per scan at which to evaluate the curve, shape (G,).

    Returns:
        The bands.

    Raises:
        ValueError: ``rounds`` is below 1, ``confidence`` is outside (0, 1), the number of groups
            is not the number of scans, or a lesion has boxes in several groups.
    """
    curve_rates = np.asarray(curve_rates, dtype=np.float64)
    samples = _Samples.draw([result], rounds, groups, confidence, seed, curve_rates)
    ((points, aps, curves),) = samples.metrics
    return Bootstrap(
        rounds=rounds,
        undefined=samples.undefined,
        confidence=confidence,
        fp_rates=result.fp_rates,
        sensitivity=Band.of(points, confidence),
        mean_sensitivity=Band.of(_mean_sensitivity(result, points), confidence),
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
    """Compare two detectors on the same resampled scans.

    Args:
        first: Result of the first detector.
        second: Result of the second detector on the same scans and lesions.
        rounds: Number of rounds.
        groups: As for :func:`bootstrap_froc`.
        confidence: Fraction of the rounds inside a band.
        seed: Seed of the resampling.

    Returns:
        Differences, second minus first, with bands and p-values.

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
    """Compare two detectors over several trainings, with the variation of trainings and scans.

    In a round, the trainings are resampled with replacement, and for each of them the scans that it
    was tested on. Both detectors of a training have the same scans.

    Args:
        pairs: Results of the first and the second detector for each training. The scans may differ
            between trainings.
        rounds: Number of rounds.
        confidence: Fraction of the rounds inside a band.
        seed: Seed of the resampling.

    Returns:
        Mean differences, second minus first, with bands and p-values.

    Raises:
        ValueError: There is no pair; or as for :func:`compare_froc`.
    """
    if not pairs:
        raise ValueError("pairs is empty; expected at least one pair of results")
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
    # Shape (T, R, K + 2): differences of sensitivities, mean sensitivity and AP for each training.
    samples = []
    for (first, second), sample in zip(pairs, drawn, strict=True):
        (points, aps, _), (other_points, other_aps, _) = sample.metrics
        mean = _mean_sensitivity(second, other_points) - _mean_sensitivity(first, points)
        samples.append(np.column_stack((other_points - points, mean, other_aps - aps)))
    count = min(map(len, samples))
    stacked = np.stack([sample[:count] for sample in samples])
    if resample:
        rng = np.random.default_rng(seed)
        chosen = rng.integers(len(pairs), size=(count, len(pairs)))
        # A training that is drawn twice in a round has different scans each time.
        shuffled = np.stack([rng.permutation(count) for _ in pairs], axis=1)
        stacked = stacked[chosen.T, shuffled.T]
    means = stacked.mean(axis=0)
    first, second = pairs[0]

    def mean_of(metric: Callable[[FROCResult], Any]) -> np.ndarray:
        return np.mean([metric(two) - metric(one) for one, two in pairs], axis=0)

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
    """Metrics of the rounds.

    Args:
        metrics: Sensitivities (R, K), APs (R,) and curve points (R, G) of every detector.
        undefined: Number of rounds without any lesion, which ``metrics`` do not include.
    """

    metrics: list[tuple[np.ndarray, np.ndarray, np.ndarray]]
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
        for result in results:
            _check_groups(result, group_of_scan)
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
        metrics = [
            (points[i, defined, :num_points], aps[i, defined], points[i, defined, num_points:])
            for i in range(len(results))
        ]
        return cls(metrics, int(np.count_nonzero(~defined)))


def _reader(result: FROCResult) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, float]]:
    """Return a function of weights and operating points that computes sensitivities and AP."""
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


def _check_groups(result: FROCResult, group_of_scan: np.ndarray) -> None:
    """Check that the hits of a lesion are in one group, with which the lesion is drawn."""
    detections, lesions = result.matches.pairs
    found = group_of_scan[result.matches.scans[detections]]
    if (found != group_of_scan[result.matches.lesion_scans[lesions]]).any():
        raise ValueError(
            "a lesion has boxes in several of the scans that are resampled; expected groups that "
            "contain whole lesions, such as volumes or patients"
        )


def _mean_sensitivity(result: FROCResult, points: np.ndarray) -> np.ndarray:
    return points[:, np.isin(result.fp_rates, result.mean_rates)].mean(axis=1)
