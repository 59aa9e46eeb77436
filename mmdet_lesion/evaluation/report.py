"""Reports of evaluations: table, ``metrics.json`` and CSV files."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from rich.table import Table

from ..io import atomic_write
from .functional import Bootstrap, Comparison, FROCResult
from .functional.bootstrap import Band, Difference

__all__ = ["Evaluated", "metrics", "table", "write_band_csv", "write_curve_csv"]

Part = TypeVar("Part", Band, Difference)

_COUNTS = (
    "true_positives",
    "false_positives",
    "false_negatives",
    "ignored",
    "duplicates",
    "detections",
    "scans",
    "lesions",
)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """Evaluation of one detector.

    Args:
        paths: Files of its detections; several are pooled.
        result: Metrics.
        bootstrap: Confidence bands of the metrics.
        strata: Metrics and bands of groups of lesions, by label.
        comparison: Differences from the first detector.
    """

    paths: Sequence[str]
    result: FROCResult
    bootstrap: Bootstrap | None = None
    strata: Mapping[str, tuple[FROCResult, Bootstrap | None]] = field(default_factory=dict)
    comparison: Comparison | None = None


def metrics(
    evaluated: Mapping[str, Evaluated], ground_truth: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the content of ``metrics.json`` for one or more detectors.

    Args:
        evaluated: Evaluations by label.
        ground_truth: File of the ground truth.
        options: Settings of the evaluation.

    Returns:
        The metrics of a single detector, or ``detections`` with one entry for each detector.
    """
    entries = {label: _entry(one) for label, one in evaluated.items()}
    head = {"ground_truth": ground_truth, "options": dict(options)}
    if len(entries) == 1:
        return head | next(iter(entries.values()))
    return head | {"detections": entries}


def _entry(one: Evaluated) -> dict[str, Any]:
    files = {"file": one.paths[0]} if len(one.paths) == 1 else {"files": list(one.paths)}
    entry: dict[str, Any] = files | _metrics_and_bands(one.result, one.bootstrap)
    if one.strata:
        entry["strata"] = {label: _metrics_and_bands(*part) for label, part in one.strata.items()}
    if one.comparison is not None:
        entry["difference_to_first"] = one.comparison.to_dict()
    return entry


def _metrics_and_bands(result: FROCResult, bootstrap: Bootstrap | None) -> dict[str, Any]:
    bands = None if bootstrap is None else bootstrap.to_dict()
    if bands is not None and result.protocol == "luna16":
        bands["cpm"] = bands["mean_sensitivity"]
    return result.to_dict() | {"bootstrap": bands}


def table(evaluated: Mapping[str, Evaluated]) -> Table:
    """Build a table of sensitivities in percent, with counts below.

    Args:
        evaluated: Evaluations by label.

    Returns:
        Table with one row for each file, stratum and band.
    """
    first = next(iter(evaluated.values())).result
    grid = Table(
        title=f"{first.protocol}: sensitivity in % at mean false positives per scan",
        caption="\n".join(_notes(evaluated)),
        caption_justify="left",
    )
    grid.add_column("detections")
    grid.add_column("")
    for rate in first.fp_rates:
        grid.add_column(f"{rate:g}", justify="right", no_wrap=True)
    grid.add_column("CPM" if first.protocol == "luna16" else "mean", justify="right", no_wrap=True)
    if first.ap is not None:
        grid.add_column("AP", justify="right", no_wrap=True)
    for label, one in evaluated.items():
        _add_metrics(grid, label, one.result, one.bootstrap)
        for stratum, part in one.strata.items():
            _add_metrics(grid, f"  {stratum}", *part)
        if one.comparison is not None:
            _add_comparison(grid, f"{label} minus {next(iter(evaluated))}", one.comparison)
        grid.add_section()
    return grid


def _add_metrics(grid: Table, label: str, result: FROCResult, bootstrap: Bootstrap | None) -> None:
    name = f"{label} ({result.counts['lesions']})" if label.startswith("  ") else label
    grid.add_row(name, "all scans", *_cells(result.sensitivity, result.mean_sensitivity, result.ap))
    if bootstrap is None:
        return
    percent = f"{100 * bootstrap.confidence:g} %"
    bands = (bootstrap.sensitivity, bootstrap.mean_sensitivity, bootstrap.ap)
    rows: tuple[tuple[str, Callable[[Band], np.ndarray]], ...] = (
        ("bootstrap mean", lambda band: band.mean),
        (f"{percent} from", lambda band: band.low),
        (f"{percent} to", lambda band: band.high),
    )
    for words, of in rows:
        grid.add_row("", words, *_cells_of(bands, of))


def _add_comparison(grid: Table, label: str, comparison: Comparison) -> None:
    percent = f"{100 * comparison.confidence:g} %"
    parts = (comparison.sensitivity, comparison.mean_sensitivity, comparison.ap)
    rows: tuple[tuple[str, Callable[[Difference], np.ndarray]], ...] = (
        ("difference", lambda part: part.value),
        (f"{percent} from", lambda part: part.band.low),
        (f"{percent} to", lambda part: part.band.high),
    )
    for words, of in rows:
        grid.add_row(label if words == "difference" else "", words, *_cells_of(parts, of))
    grid.add_row("", "p", *_cells_of(parts, lambda part: part.p_value, factor=1, digits=3))


def _cells_of(
    parts: tuple[Part, Part, Part | None],
    of: Callable[[Part], np.ndarray],
    factor: float = 100,
    digits: int = 2,
) -> list[str]:
    points, mean, ap = parts
    last = None if ap is None else float(of(ap))
    return _cells(of(points), float(of(mean)), last, factor, digits)


def _cells(
    points: Iterable[float],
    mean: float,
    ap: float | None,
    factor: float = 100,
    digits: int = 2,
) -> list[str]:
    values = [*points, mean] if ap is None else [*points, mean, ap]
    return [f"{factor * value:.{digits}f}" if math.isfinite(value) else "-" for value in values]


def _notes(evaluated: Mapping[str, Evaluated]) -> list[str]:
    notes = []
    for label, one in evaluated.items():
        counts = ", ".join(f"{one.result.counts[key]:,} {_words(key)}" for key in _COUNTS)
        notes.append(f"{label}: {counts}")
        if one.result.outside:
            rates = ", ".join(f"{rate:g}" for rate in one.result.outside)
            how = "extrapolated" if one.result.rule.extrapolate else "outermost value"
            notes.append(f"{label}: outside the curve, {how}: {rates}")
        if one.bootstrap is not None and one.bootstrap.undefined:
            notes.append(
                f"{label}: {one.bootstrap.undefined} of {one.bootstrap.rounds} rounds drew no "
                "lesion and are not included"
            )
    return notes


def _words(key: str) -> str:
    return key.replace("_", " ")


def write_curve_csv(path: str | os.PathLike, evaluated: Mapping[str, Evaluated]) -> None:
    """Write the points of the curves: label, false positives per scan, sensitivity, threshold."""
    rows = (
        (label, *point)
        for label, one in evaluated.items()
        for point in zip(
            one.result.curve.fps.tolist(),
            one.result.curve.sensitivity.tolist(),
            one.result.curve.thresholds.tolist(),
            strict=True,
        )
    )
    _write_csv(path, ("detections", "fps", "sensitivity", "threshold"), rows)


def write_band_csv(path: str | os.PathLike, evaluated: Mapping[str, Evaluated]) -> None:
    """Write the bands of the curves: label, false positives per scan, mean, low, high."""
    rows = (
        (label, *point)
        for label, one in evaluated.items()
        if one.bootstrap is not None
        for point in zip(
            one.bootstrap.curve_rates.tolist(),
            one.bootstrap.curve.mean.tolist(),
            one.bootstrap.curve.low.tolist(),
            one.bootstrap.curve.high.tolist(),
            strict=True,
        )
    )
    _write_csv(path, ("detections", "fps", "mean", "low", "high"), rows)


def _write_csv(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence]) -> None:
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
