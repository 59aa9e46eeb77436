"""Evaluation, table and plots of rehearsals."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from mmdet_lesion.io import read_json

__all__ = ["BOUNDS", "evaluate", "plot_rows", "table_of"]

BOUNDS: dict[str, dict] = read_json(Path(__file__).with_name("bounds.json"))

_COLUMNS = {
    "overfit": "overfit",
    "final_loss_ratio": "final loss",
    "peak_loss_ratio": "peak loss",
    "logit_std": "logits' SD",
    "grad_norm": "gradient norm",
    "guessed_pos_share": "guessed positives",
    "unlabeled_loss_ratio": "unlabeled loss",
    "guess_time_ratio": "guess time",
    "mined_per_image": "mined",
}


def evaluate(figures: dict[str, float], failure: str | None) -> list[str]:
    """Compare figures with the bounds.

    Args:
        figures: Name in ``bounds.json`` → figure.
        failure: Error that ended the training, or None.

    Returns:
        A message for each violated bound.
    """
    broken = [f"broke off ({failure})"] if failure else []
    for name, value in figures.items():
        bound = BOUNDS[name]
        low, high = bound.get("min", -math.inf), bound.get("max", math.inf)
        # NaN violates every bound.
        if not low <= value <= high:
            wanted = f"at least {low:g}" if "min" in bound else f"at most {high:g}"
            broken.append(f"{name} is {value:.3g}; expected {wanted}")
    return broken


def table_of(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table of results, with the changes to each config."""
    names = [name for name in _COLUMNS if any(name in r["figures"] for r in results)]
    head = [
        "config",
        "seed",
        *(_COLUMNS[name] for name in names),
        "loss",
        "s / step",
        "GiB",
        "verdict",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for result in results:
        same = result.get("same_as", result["config"])
        note = "" if same == result["config"] else f" (as `{same}`)"
        cells = [f"`{result['config']}`{note}", str(result["seed"])]
        cells += [_number(result["figures"].get(name)) for name in names]
        cells += [_number(result[name]) for name in ("final_loss", "step_time", "memory")]
        cells.append("; ".join(result["broken"]) or "passes")
        lines.append("| " + " | ".join(cells) + " |")
    lines += [
        "",
        '`loss` is the median total loss of the last tenth of the training. "As" marks a config '
        "that differs only in settings that a rehearsal replaces (data, length, schedule).",
    ]
    bounds = [
        f"- {_COLUMNS[name]}: {BOUNDS[name]['about']}; "
        + (f"≥ {BOUNDS[name]['min']:g}" if "min" in BOUNDS[name] else f"≤ {BOUNDS[name]['max']:g}")
        for name in names
    ]
    changes: dict[str, list[str]] = {}
    for result in results:
        changes.setdefault("; ".join(result["changes"]), []).append(f"`{result['config']}`")
    smaller = [f"- {', '.join(dict.fromkeys(who))}: {text}" for text, who in changes.items()]
    sections = [lines, ["Bounds (`tools/rehearsal/bounds.json`):", "", *bounds]]
    sections.append(["Changes to the configs:", "", *smaller])
    return "\n\n".join("\n".join(section) for section in sections) + "\n"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def plot_rows(rows: list[dict[str, float]], title: str, path: Path) -> None:
    """Plot the recorded values over the iterations.

    Args:
        rows: One dict per iteration.
        title: Title of the figure.
        path: PNG file to write.
    """
    iters = np.array([row["iter"] for row in rows]) + 1
    losses = [name for name in rows[0] if "loss" in name]
    panels = {
        "loss": losses,
        "gradient norm and SD of logits": ["grad_norm", "logit_std"],
        "anchors or boxes per image": ["num_pos", "guessed_pos", "guessed_objects",
                                       "mined_per_image"],
        "seconds": ["time", "guess_time"],
    }  # fmt: skip
    figure, axes = plt.subplots(2, 2, figsize=(11, 7), layout="constrained")
    for axis, (label, names) in zip(axes.flat, panels.items()):
        for name in names:
            values = np.array([row.get(name, np.nan) for row in rows], dtype=float)
            if np.isfinite(values).any():
                axis.plot(iters, values, label=name, linewidth=2 if name == "loss" else 1)
        axis.set(xlabel="iteration", ylabel=label)
        if axis.lines:
            # Losses and norms span orders of magnitude; counts are often 0.
            axis.set_yscale("symlog" if "anchors" in label else "log")
            axis.legend(fontsize=8)
        axis.grid(alpha=0.3)
    figure.suptitle(title)
    figure.savefig(path, dpi=100)
    plt.close(figure)
