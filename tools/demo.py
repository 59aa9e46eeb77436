"""Demo of the mean teacher on phantoms with missing annotations, on a CPU.

For each seed, the demo generates and converts phantoms, trains three configs with
``tools/dist_train.sh`` in two processes, and tests four models. It writes a table, the FROC plot
and pictures of mined and detected lesions.

Example::

    python tools/demo.py demo_out --seeds 0 1 2 --ignore
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
from mmengine import Config
from rich.console import Console
from rich.table import Table

from mmdet_lesion.evaluation.functional import compare_trainings, p3d_froc
from mmdet_lesion.io import read_detections, read_ground_truth, write_json

ROOT = Path(__file__).resolve().parents[1]
PHANTOM = ROOT / "configs" / "phantom"
#: Options of the phantoms: livers with lesions of low to high contrast. In other organs, bowel and
#: hilum resemble lesions and are mined in a short training.
PHANTOMS = [
    *("--volumes", "166", "--split", "80", "6", "80", "--size", "128", "--slices", "16", "20"),
    *("--intervals", "2", "--missing", "0.75", "--lesions", "4", "7", "--diameter", "18", "48"),
    *("--contrast", "25", "65", "--hypodense", "0", "--subsolid", "0", "--noise", "22"),
    *("--types", "4", "--enhancement", "0", "0.1"),
]
SPACING = ["3.2", "3.2"]
#: Training run → config.
RUNS = {
    "supervised": "faster_rcnn_phantom",
    "mean_teacher": "mean_teacher_phantom",
    "full_labels": "faster_rcnn_phantom_full_labels",
}
#: Row of the table → training run and its student or teacher.
ROWS = {
    "supervised, student": ("supervised", "student"),
    "supervised, EMA": ("supervised", "teacher"),
    "mean teacher": ("mean_teacher", "teacher"),
    "full labels, EMA": ("full_labels", "teacher"),
}
#: Additional row of ``--ignore``, the paper's other policy.
IGNORE_RUN = {"mean_teacher_ignore": "mean_teacher_ignore_phantom"}
IGNORE_ROW = {"mean teacher, ignoring": ("mean_teacher_ignore", "teacher")}


def call(*command: object, log: Path | None = None, **variables: str) -> None:
    """Run a command; raises an error if it fails.

    Args:
        *command: The words of the command.
        log: File for its output; None prints it.
        **variables: Environment variables.
    """
    words = [str(word) for word in command]
    print("$", " ".join(words), flush=True)
    env = {**os.environ, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", **variables}
    with open(log, "w") if log else nullcontext() as output:
        subprocess.run(words, check=True, cwd=ROOT, env=env, stdout=output, stderr=output)


def make_data(out: Path, seed: int) -> list[str]:
    """Generate and convert phantoms; returns the ``--cfg-options`` for training on them."""
    raw, data = out / "raw", out / "data"
    python = sys.executable
    call(python, "tools/make_phantoms.py", "deeplesion", raw, *PHANTOMS, "--seed", seed,
         "--workers", 2, "--overwrite")  # fmt: skip
    call(python, "tools/dataset_converters/deeplesion.py", raw, "--out", data,
         "--harvester", raw / "harvester", "--spacing", *SPACING, "--workers", 2,
         "--resume")  # fmt: skip
    loaders = [
        f"{split}_dataloader.dataset.data_root={data}/" for split in ("train", "val", "test")
    ]
    return ["--cfg-options", *loaders, f"randomness.seed={seed}"]


def train(out: Path, run: str, config: str, options: list[str], start: Path | None = None) -> None:
    """Train a config with two processes and split its checkpoint into student and teacher.

    Args:
        out: Folder of the seed.
        run: Name of the training run.
        config: Name of the config.
        options: Result of :func:`make_data`.
        start: Checkpoint to continue; None trains from the beginning.
    """
    resume = ["--resume", start] if start else []
    call("tools/dist_train.sh", PHANTOM / f"{config}.py", 2, "--work-dir", out / run,
         *resume, *options)  # fmt: skip
    call(sys.executable, "tools/model_converters/split_teacher.py",
         (out / run / "last_checkpoint").read_text(), "--out", out / run)  # fmt: skip


def run_seed(out: Path, seed: int, ignore: bool = False) -> dict:
    """Run the demo for one seed; returns a dict of row → figures."""
    options = make_data(out, seed)
    runs = {**RUNS, **IGNORE_RUN} if ignore else RUNS
    rows = {**ROWS, **IGNORE_ROW} if ignore else ROWS
    begin = (
        Config.fromfile(PHANTOM / f"{RUNS['mean_teacher']}.py").custom_hooks[0].begin_mining_iter
    )
    for run, config in runs.items():
        # Until the teacher mines, its training equals the supervised one, which it continues.
        start = out / f"supervised/iter_{begin}.pth" if run.startswith("mean_teacher") else None
        train(out, run, config, [*options, f"default_hooks.checkpoint.interval={begin}"], start)
    results, curves = {}, {}
    truth = read_ground_truth(out / "raw" / "harvester" / "Revised-Test1071.pkl")
    for row, (run, model) in rows.items():
        prefix = out / run / f"test_{model}"
        call("tools/dist_test.sh", PHANTOM / f"{runs[run]}.py", out / run / f"{model}.pth", 2,
             "--work-dir", out / run, *options,
             f"test_evaluator.outfile_prefix={prefix}")  # fmt: skip
        curves[row] = p3d_froc(read_detections(f"{prefix}.detections.pkl"), truth)
        results[row] = figures_of(curves[row])
    for row, (run, _) in rows.items():
        if run.startswith("mean_teacher"):
            results[row].update(mining_figures(out / run))
    # Importing detectors and plots takes seconds, which --help does not need.
    from mmdet_lesion.apis import detected_overlays, mined_overlays
    from mmdet_lesion.visualization import plot_froc, save_montage

    plot_froc(curves, out / "froc.png")
    config = str(out / "mean_teacher" / "mean_teacher_phantom.py")
    teacher = str(out / "mean_teacher" / "teacher.pth")
    save_montage(mined_overlays(config, teacher, num=9), out / "mined.png")
    save_montage(detected_overlays(config, teacher, num=9), out / "detected.png")
    return results


def print_gains(out: Path, seeds: list[int], ignore: bool = False) -> None:
    """Print the gain of each row over the supervised EMA, with a confidence interval."""
    _, baseline, *others = {**ROWS, **(IGNORE_ROW if ignore else {})}
    results = {row: [] for row in (baseline, *others)}
    over = f"over {len(seeds)} seeds and their volumes" if seeds[1:] else "over volumes, one seed:"
    for seed in seeds:
        truth = read_ground_truth(out / f"seed{seed}/raw/harvester/Revised-Test1071.pkl")
        for row, of_seeds in results.items():
            run, model = {**ROWS, **IGNORE_ROW}[row]
            found = read_detections(out / f"seed{seed}/{run}/test_{model}.detections.pkl")
            of_seeds.append(p3d_froc(found, truth))
    for row in others:
        gain = compare_trainings(list(zip(results[baseline], results[row])), 2000)
        for name, difference in (("mean", gain.mean_sensitivity), ("AP", gain.ap)):
            low, high = 100 * difference.band.low, 100 * difference.band.high
            print(
                f"{row} over {baseline}, {name}: {100 * difference.value:+.1f} points (95 % band "
                f"{over} {low:+.1f} to {high:+.1f}, "
                f"p = {difference.p_value:.3f})"
            )


def figures_of(result) -> dict:
    """Return the table's figures of a FROC result, in percent."""
    figures = {
        f"{rate:g}": 100 * sensitivity
        for rate, sensitivity in zip(result.fp_rates, result.sensitivity)
        if rate in result.mean_rates
    }
    figures["mean"] = 100 * result.mean_sensitivity
    return figures if result.ap is None else {**figures, "AP": 100 * result.ap}


def late_entries(work_dir: Path, key: str) -> list[dict]:
    """Return the last quarter of a training's log entries that have a key."""
    log = max(work_dir.glob("*/vis_data/scalars.json"))
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    entries = [entry for entry in entries if key in entry]
    return entries[-max(1, len(entries) // 4) :]


def mining_figures(work_dir: Path) -> dict:
    """Return precision and recall of mining over the last quarter of the training, in percent."""
    late = late_entries(work_dir, "mining_recall")
    precision = [entry["mining_precision"] for entry in late if "mining_precision" in entry]
    return {
        "mining precision": 100 * float(np.mean(precision)) if precision else float("nan"),
        "mining recall": 100 * float(np.mean([entry["mining_recall"] for entry in late])),
    }


def table_of(seeds: dict, title: str) -> Table:
    """Return a table of the figures, or of mean ± standard deviation for several seeds.

    Args:
        seeds: Seed → row → column → figure. A row may lack columns.
        title: Title of the table.
    """
    some = next(iter(seeds.values()))
    columns = list(dict.fromkeys(column for figures in some.values() for column in figures))
    table = Table(title=f"{title}, seeds {', '.join(map(str, seeds))}")
    table.add_column("model")
    for column in columns:
        table.add_column(column, justify="right")
    for row in some:
        cells = []
        for column in columns:
            values = [results[row][column] for results in seeds.values() if column in results[row]]
            if not values:
                cells.append("")
            elif len(values) == 1:
                cells.append(f"{values[0]:.1f}")
            else:
                cells.append(f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}")
        table.add_row(row, *cells)
    return table


def main(
    run: Callable[[Path, int], dict] = run_seed,
    title: str = "P3D-IoU FROC on phantoms in percent",
    description: str = __doc__.splitlines()[0],
    flags: dict[str, str] | None = None,
    conclude: Callable[..., None] | None = None,
) -> int:
    """Run a demo for each seed of the command line; returns the exit status.

    Args:
        run: Runs one seed in a folder and returns row → figures.
        title: Title of the table.
        description: Description of the command.
        flags: Additional switches → help texts, passed to ``run`` as keyword arguments.
        conclude: Prints more after the table; called with the folder, seeds and switches.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    for flag, text in (flags or {}).items():
        parser.add_argument(f"--{flag}", action="store_true", help=text)
    args = parser.parse_args()
    switches = {flag: getattr(args, flag) for flag in flags or ()}
    out = args.out.resolve()
    begin = time.time()
    seeds = {}
    for seed in args.seeds:
        try:
            seeds[seed] = run(out / f"seed{seed}", seed, **switches)
        except subprocess.CalledProcessError as error:
            print(
                f"error: {' '.join(error.cmd)} ended with status {error.returncode}",
                file=sys.stderr,
            )
            return 1
        write_json(
            out / "results.json", {str(key): value for key, value in seeds.items()}, indent=2
        )
    console = Console(width=200)
    console.print(table_of(seeds, title))
    if conclude:
        conclude(out, args.seeds, **switches)
    console.print(f"{(time.time() - begin) / 60:.1f} minutes; files: {out}/seed*")
    return 0


if __name__ == "__main__":
    ignore = {"ignore": "also train with mined lesions ignored instead of added"}
    sys.exit(main(flags=ignore, conclude=print_gains))
