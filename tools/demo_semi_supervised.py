"""Demo of semi-supervised objectives on phantoms with few labeled scans, on a CPU.

For each seed, the demo generates and converts the phantoms of ``tools/demo_focalmix.py`` and
trains the supervised detector, FocalMix and the nine objectives of ``configs/semi_supervised`` on
them, with ``tools/dist_train.sh`` in two processes. It writes a table and the FROC plot. A stopped
demo goes on with the trainings that are missing.

Example::

    python tools/demo_semi_supervised.py demo_out_semi_supervised --objectives fixmatch uda
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from demo import late_entries, main
from demo_focalmix import (
    CONVERSION,
    PHANTOMS,
    ROWS,
    make_data,
    options_of,
    print_differences,
    run_trainings,
)

SUPERVISED = "supervised"
#: Name of ``--objectives`` → row of the table. Configs are in ``configs/phantom``.
OBJECTIVES = {
    "focalmix": "FocalMix",
    "pi_model": "Π-model",
    "temporal_ensembling": "temporal ensembling",
    "mean_teacher": "mean teacher",
    "vat": "virtual adversarial training",
    "entropy_minimization": "entropy minimization",
    "pseudo_label": "pseudo-labels",
    "mixmatch": "MixMatch",
    "fixmatch": "FixMatch",
    "uda": "UDA",
}
TITLE = "LUNA16 FROC on phantoms in percent, anchors used and their confidence in percent"


def rows_of(objectives: Sequence[str]) -> dict[str, str]:
    """Return row → config of the supervised detector and of objectives."""
    rows = {OBJECTIVES[name]: f"{name}_luna16_phantom" for name in objectives}
    return {SUPERVISED: ROWS[SUPERVISED]} | rows | {row: ROWS[row] for row in ROWS if row in rows}


def run_seed(out: Path, seed: int, objectives: Sequence[str]) -> dict:
    """Run the demo for one seed; returns a dict of row → figures."""
    rows = rows_of(objectives)
    make_data(out, seed)
    options = partial(options_of, data=out / "data", seed=seed)
    results = run_trainings(out, rows, options, [*PHANTOMS, *CONVERSION])
    for row, config in rows.items():
        if row != SUPERVISED:
            results[row].update(objective_figures(out / config))
    return results


def objective_figures(work_dir: Path) -> dict[str, float]:
    """Return how much an objective used in the last quarter of the training, in percent.

    Returns:
        The share of anchors in the loss, and the mean confidence of their targets.
    """
    log = max(work_dir.glob("*/vis_data/scalars.json"))
    keys = {key for line in log.read_text().splitlines() for key in json.loads(line)}
    (name,) = (key.removesuffix("_used") for key in keys if key.endswith("_used"))
    late = late_entries(work_dir, f"{name}_used")
    return {
        column: 100 * float(np.mean([entry[f"{name}_{key}"] for entry in late]))
        for column, key in (("anchors used", "used"), ("confidence", "confidence"))
    }


def print_gains(out: Path, seeds: Sequence[int], objectives: Sequence[str]) -> None:
    """Print the gain of each objective over the supervised detector."""
    rows = rows_of(objectives)
    pairs = [(row, SUPERVISED) for row in rows if row != SUPERVISED]
    print_differences([out / f"seed{seed}" for seed in seeds], rows, pairs)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this demo."""
    parser.add_argument(
        "--objectives", nargs="+", default=list(OBJECTIVES), choices=list(OBJECTIVES),
        metavar="NAME",
        help=f"objectives to train (default: all): {', '.join(OBJECTIVES)}",
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(
        main(
            run_seed, TITLE, __doc__.splitlines()[0], add_options=add_options, conclude=print_gains
        )
    )
