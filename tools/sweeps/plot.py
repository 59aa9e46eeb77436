"""Plot of metrics over the values of a setting."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

__all__ = ["SweepLine", "plot_sweep"]

# Number of labeled ticks that fit under an axis.
_MAX_TICKS = 12


@dataclass(frozen=True)
class SweepLine:
    """One metric of one detector over the values of a setting.

    Args:
        label: Name in the legend.
        x: ``(n,)`` values of the setting: numbers, or other values shown as text.
        mean: ``(n,)`` percent.
        spread: ``(n,)`` standard deviation over seeds in percentage points; zeros hide the bars.
    """

    label: str
    x: Sequence[Any]
    mean: Sequence[float]
    spread: Sequence[float]


def plot_sweep(
    lines: Mapping[str, Sequence[SweepLine]],
    path: str | os.PathLike,
    xlabel: str,
    baselines: Mapping[str, tuple[str, float]] | None = None,
    one_panel: bool = True,
) -> None:
    """Draw metrics in percent over a setting.

    Numbers lie on a linear axis, or on a logarithmic one where they are positive and span a factor
    of 100 or more; other values are spaced evenly.

    Args:
        lines: Metric → its lines.
        path: Image to write; the suffix determines the format.
        xlabel: Name of the setting.
        baselines: Metric → label and percent of a dashed horizontal line.
        one_panel: Draw all metrics in one panel instead of a panel for each.

    Raises:
        ValueError: ``lines`` is empty.
    """
    values = _distinct(x for some in lines.values() for line in some for x in line.x)
    if not values:
        raise ValueError("plot_sweep got no line; expected at least one with a value")
    panels = [list(lines)] if one_panel else [[name] for name in lines]
    figure = Figure(figsize=(1.6 + 4.8 * len(panels), 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, names in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for name in names:
            _draw(axes, values, lines[name], (baselines or {}).get(name))
        _x_axis(axes, values)
        axes.set_xlabel(xlabel)
        bars = any(any(line.spread) for name in names for line in lines[name])
        axes.set_ylabel(
            (f"{names[0]} (%)" if len(names) == 1 else "metric (%)")
            + (", mean ± standard deviation over seeds" if bars else "")
        )
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=150)


def _draw(
    axes: Axes, values: list, lines: Sequence[SweepLine], baseline: tuple[str, float] | None
) -> None:
    color = None
    for line in lines:
        x = line.x if _are_numbers(values) else [values.index(value) for value in line.x]
        order = sorted(range(len(x)), key=x.__getitem__)
        x, mean, spread = ([column[i] for i in order] for column in (x, line.mean, line.spread))
        drawn = axes.errorbar(
            x,
            mean,
            spread if any(spread) else None,
            marker="o",
            markersize=4,
            linewidth=1.5,
            capsize=3,
            label=line.label,
        )
        color = drawn[0].get_color()
    if baseline is not None:
        label, percent = baseline
        # In the color of a single line; black if several lines share the baseline.
        axes.axhline(
            percent,
            linestyle="--",
            linewidth=1.2,
            color=color if len(lines) == 1 else "black",
            label=f"{label}: {lines[0].label}" if len(lines) == 1 else label,
        )


def _x_axis(axes: Axes, values: list) -> None:
    if not _are_numbers(values):
        axes.set_xticks(range(len(values)), [str(value) for value in values])
        axes.margins(x=0.1)
        return
    if min(values) > 0 and max(values) >= 100 * min(values):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    if len(values) <= _MAX_TICKS:
        axes.set_xticks(sorted(values), [f"{value:g}" for value in sorted(values)])


def _distinct(values: Any) -> list:
    found: list = []
    for value in values:
        if value not in found:
            found.append(value)
    return found


def _are_numbers(values: Sequence[Any]) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in values)
