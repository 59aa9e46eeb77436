"""Plots of FROC curves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

if TYPE_CHECKING:
    from mmdet_lesion.evaluation.functional import Bootstrap, FROCResult

__all__ = ["plot_froc"]


def plot_froc(
    results: Mapping[str, FROCResult],
    path: str | os.PathLike,
    title: str | None = None,
    bands: Mapping[str, Bootstrap] | None = None,
) -> None:
    """Plot FROC curves over a logarithmic axis of false positives.

    Dots mark the sensitivities at the operating points, which are also the ticks of the axis. The
    legend contains the mean sensitivity of each curve, its confidence band, and the average
    precision if the protocol has one.

    Args:
        results: Results of :func:`p3d_froc` or another protocol, by label.
        path: Image to write; the suffix selects the format (``.png``, ``.pdf``, ``.svg``).
        title: Title of the plot.
        bands: Bootstraps with ``curve_rates``, by label; their bands are shaded.

    Raises:
        ValueError: There is no result.
    """
    if not results:
        raise ValueError("results is empty; expected at least one curve")
    # Without pyplot, there is no global state and no display.
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    rates = np.unique(np.concatenate([result.fp_rates for result in results.values()]))
    low, high = rates[0] / 1.5, rates[-1] * 1.5
    for label, result in results.items():
        fps, sensitivity = _within(result, low, high)
        band = (bands or {}).get(label)
        text = _legend(label, result, band)
        (line,) = axes.plot(fps, sensitivity, linewidth=1.5, label=text)
        inside = ~np.isin(result.fp_rates, result.outside)
        axes.plot(
            result.fp_rates[inside],
            result.sensitivity[inside],
            linestyle="none",
            marker="o",
            markersize=4,
            color=line.get_color(),
        )
        if band is not None:
            axes.fill_between(
                band.curve_rates,
                band.curve.low,
                band.curve.high,
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )
    axes.set_xscale("log", base=2)
    axes.set_xlim(low, high)
    axes.set_ylim(0, 1)
    axes.set_xticks(rates, [f"{rate:g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("mean false positives per scan")
    axes.set_ylabel("sensitivity")
    axes.grid(alpha=0.3)
    # Curves of good detectors leave the lower right corner free, others the upper left.
    good = max(result.mean_sensitivity for result in results.values()) > 0.5
    axes.legend(loc="lower right" if good else "upper left", fontsize="small")
    if title:
        axes.set_title(title)
    figure.savefig(path, dpi=150)


def _within(result: FROCResult, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """Clip a curve to the range of the axis, starting at its left edge."""
    fps, sensitivity = result.curve.fps, result.curve.sensitivity
    if not len(fps):
        return np.array([low, high]), np.zeros(2)
    before = np.searchsorted(fps, low, side="right")
    start = sensitivity[before - 1] if before else 0.0
    return (
        np.concatenate(([low], fps[before:])),
        np.concatenate(([start], sensitivity[before:])),
    )


def _legend(label: str, result: FROCResult, bootstrap: Bootstrap | None) -> str:
    headline = "CPM" if result.protocol == "luna16" else "mean"
    text = f"{label}: {headline} {100 * result.mean_sensitivity:.1f}"
    if bootstrap is not None:
        low, high = bootstrap.mean_sensitivity.low, bootstrap.mean_sensitivity.high
        text += f" ({100 * bootstrap.confidence:g} % {100 * low:.1f} to {100 * high:.1f})"
    return text if result.ap is None else f"{text}, AP {100 * result.ap:.1f}"
