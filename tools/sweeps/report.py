"""Results of a sweep as a Markdown table, a CSV file and a plot."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmdet_lesion.errors import InputError
from mmdet_lesion.io import atomic_write

from .plot import SweepLine, plot_sweep
from .runs import Run, value_text

#: Default metrics of a table: the main ones of this package and of COCO.
HEADLINES = ("mean_sensitivity", "cpm", "ap", "bbox_mAP")

Results = Sequence[tuple[Run, dict[str, float]]]


def headline_metrics(results: Results, wanted: Sequence[str] | None = None) -> list[str]:
    """Return the metrics that the table and the plot show.

    Args:
        results: Finished runs and their metrics.
        wanted: Names of metrics; None selects those of :data:`HEADLINES`, or all if there are none.

    Raises:
        InputError: A wanted metric was not measured.
    """
    names = list(dict.fromkeys(name for _, metrics in results for name in metrics))
    if wanted is None:
        return [name for name in names if name.split("/")[-1] in HEADLINES] or names
    for name in wanted:
        if name not in names:
            raise InputError(f"--metrics names {name!r}; expected some of {', '.join(names)}")
    return list(wanted)


def _groups(results: Results) -> list[tuple[Run, list[dict[str, float]]]]:
    """Return the first run of each combination of values with the metrics of all seeds."""
    groups: dict[tuple, tuple[Run, list]] = {}
    for run, metrics in results:
        key = (str(run.config), *map(value_text, run.values.values()))
        groups.setdefault(key, (run, []))[1].append(metrics)
    return list(groups.values())


def _mean_and_spread(found: Sequence[dict[str, float]], name: str) -> tuple[float, float]:
    """Return mean and standard deviation over the seeds, in percent."""
    values = [100 * metrics[name] for metrics in found if name in metrics]
    if not values:
        return float("nan"), 0.0
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def markdown(results: Results, names: Sequence[str]) -> str:
    """Return a table with a row for each combination of values, figures in percent.

    Args:
        results: Finished runs and their metrics.
        names: Metrics, one column each.
    """
    groups = _groups(results)
    keys = next((list(run.values) for run, _ in groups if run.values), ["run"])
    seeds = len(groups) < len(results)
    head = [*keys, *(["seeds"] if seeds else []), *(f"{name} (%)" for name in names)]
    lines = [head, ["---"] * len(head)]
    for run, found in groups:
        cells = [value_text(value) for value in run.values.values()]
        cells = cells or [f"baseline {run.config.stem}", *[""] * (len(keys) - 1)]
        cells += [str(len(found))] if seeds else []
        for name in names:
            mean, spread = _mean_and_spread(found, name)
            cells.append(f"{mean:.2f} ± {spread:.2f}" if len(found) > 1 else f"{mean:.2f}")
        lines.append(cells)
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return table + ("\nMean ± standard deviation over the seeds.\n" if seeds else "")


def write_csv(path: Path, results: Results) -> None:
    """Write one row with all metrics, as fractions, for each finished run."""
    keys = next((list(run.values) for run, _ in results if run.values), [])
    names = list(dict.fromkeys(name for _, metrics in results for name in metrics))
    with atomic_write(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["config", *keys, "seed", *names, "folder"])
        for run, metrics in results:
            values = [value_text(run.values[key]) if run.values else "" for key in keys]
            figures = [metrics.get(name, "") for name in names]
            writer.writerow([run.config, *values, run.seed, *figures, run.folder])


def draw(path: Path, results: Results, names: Sequence[str], swept: Mapping[str, Sequence]) -> None:
    """Draw the metrics over the first key with several values.

    For one key, draws one panel with a line for each metric. For several keys, draws a panel for
    each metric with a line for each combination of the other keys' values. The baseline is dashed.

    Args:
        path: Image to write.
        results: Finished runs and their metrics.
        names: Metrics.
        swept: Key → values.
    """
    axis = next((key for key, values in swept.items() if len(values) > 1), next(iter(swept)))
    others = [key for key, values in swept.items() if key != axis and len(values) > 1]
    groups = _groups(results)
    base = next(((run, found) for run, found in groups if not run.values), None)

    def line(label: str, name: str, members: Sequence) -> SweepLine:
        figures = [_mean_and_spread(found, name) for _, found in members]
        return SweepLine(
            label,
            [run.values[axis] for run, _ in members],
            [mean for mean, _ in figures],
            [spread for _, spread in figures],
        )

    lines: dict[str, list[SweepLine]] = {name: [] for name in names}
    members: dict[str, list] = {}
    for run, found in groups:
        if run.values:
            label = ", ".join(
                f"{key.split('.')[-1]}={value_text(run.values[key])}" for key in others
            )
            members.setdefault(label, []).append((run, found))
    for label, some in members.items():
        for name in names:
            lines[name].append(line(label or name, name, some))
    baselines = {}
    if base is not None:
        for name in names:
            baselines[name] = (base[0].config.stem, _mean_and_spread(base[1], name)[0])
    with atomic_write(path) as temporary:
        plot_sweep(lines, temporary, axis, baselines, one_panel=not others)
