"""Plot of precision and recall of mined lesions."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from mmdet_lesion.evaluation.functional.mining import MiningCurve

__all__ = ["plot_mining_curve"]


def plot_mining_curve(curve: MiningCurve, path: str | os.PathLike, score_thr: float) -> None:
    """Plot precision and recall over the score threshold.

    Args:
        curve: The curve.
        path: Image to write.
        score_thr: Threshold in use, which is marked.
    """
    # Without pyplot, there is no global state and no display.
    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    # The first curve is wider, so that both are seen where they coincide.
    for label, values, width in (("precision", curve.precision, 3), ("recall", curve.recall, 1.5)):
        axes.plot(curve.scores, values, drawstyle="steps-pre", linewidth=width, label=label)
    count, precision, recall = curve.at(score_thr)
    figures = f"precision {precision:.2f}, recall {recall:.2f}" if count else "recall 0"
    axes.axvline(
        score_thr,
        color="0.5",
        linestyle="--",
        linewidth=1,
        label=f"{score_thr:g}: {count} mined, {figures}",
    )
    axes.set_xlim(0, 1)
    # Curves at 0 and 1 stay visible beside the frame.
    axes.set_ylim(-0.03, 1.03)
    axes.set_xlabel("score threshold")
    axes.set_title(f"mining of {curve.hidden} hidden lesions")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left", fontsize="small")
    figure.savefig(path, dpi=150)
