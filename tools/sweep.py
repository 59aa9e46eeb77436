r"""Train and test a config for each value of its settings: one table and one plot.

Each run calls ``tools/train.py`` and ``tools/test.py`` (with --gpus ``dist_train.sh`` and
``dist_test.sh``) with the values as ``--cfg-options``. Several keys form a grid. If the command is
repeated, finished runs are kept and interrupted trainings are resumed.

The output folder holds ``sweep.md``, ``sweep.csv`` and ``sweep.png``, and a folder for each run
with its ``train.log`` and ``test.log``.

Exit status: 0 if all runs are finished, 1 if some failed or are missing, 2 for invalid arguments.

Examples:
    python tools/sweep.py configs/partial_label/a3d_7slice_factor_only.py \
        model.rpn_head.neg_weight=0,0.2,0.4,0.6,0.8,1 --seeds 0 1 2
    python tools/sweep.py configs/uld/mean_teacher_deeplesion.py \
        custom_hooks.0.score_thr=0.95,0.90,0.85,0.80 \
        --cfg-options train_cfg.max_iters=20000 --gpus 4 --commands
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmdet_lesion.command_line import config_file, positive, random_seed, tool_main

if TYPE_CHECKING:
    from sweeps.runs import Run


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("config", type=config_file, help="config of the detector")
    parser.add_argument(
        "settings",
        nargs="+",
        metavar="KEY=VALUES",
        help="setting of the config and its values, separated by commas, parsed as by "
        "--cfg-options; lists by index: custom_hooks.0.score_thr=0.8,0.9",
    )
    parser.add_argument(
        "--work-dir", type=Path, help="folder to write to (default: work_dirs/CONFIG_KEYS_sweep)"
    )
    parser.add_argument(
        "--seeds",
        type=random_seed,
        nargs="+",
        default=[],
        help="random seeds (default: the config's)",
    )
    parser.add_argument(
        "--baseline",
        type=config_file,
        metavar="CONFIG",
        help="config that is trained and tested without the swept settings, shown as a row of the "
        "table and a dashed line",
    )
    parser.add_argument("--metrics", nargs="+", help="metrics to show (default: the main ones)")
    parser.add_argument(
        "--gpus",
        type=positive,
        default=1,
        help="processes of each run; runs take place one at a time (default: %(default)s)",
    )
    parser.add_argument("--amp", action="store_true", help="train with mixed precision")
    parser.add_argument(
        "--auto-scale-lr", action="store_true", help="scale the learning rate with the batch size"
    )
    parser.add_argument(
        "--cfg-options",
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="settings of all runs, including the baseline",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--commands",
        action="store_true",
        help="print a command line for each unfinished run, and one that collects the results",
    )
    mode.add_argument(
        "--collect",
        action="store_true",
        help="only write the table and the plot of the finished runs",
    )
    return parser.parse_args(argv)


def train_and_test(run: Run) -> str | None:
    """Train and test a run, or resume it; returns an error message, or None on success."""
    steps = (
        ("training", "train.log", lambda: run.train_command()),
        ("test", "test.log", lambda: run.test_command(str(run.checkpoint))),
    )
    run.folder.mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "PYTHON": sys.executable}
    for step, name, command in steps:
        log = run.folder / name
        with open(log, "ab") as output:
            words = command()
            status = subprocess.run(words, stdout=output, stderr=output, env=env).returncode
        if status:
            return f"{run}: the {step} ended with status {status}; see {log}"
    if run.metrics() is None:
        return f"{run}: the test left no metrics in {run.folder / 'test'}; see {log}"
    return None


def train_and_test_all(runs: Sequence[Run]) -> bool:
    """Execute the unfinished runs in sequence; returns whether all of them succeeded."""
    succeeded = True
    for number, run in enumerate(runs, start=1):
        head = f"[{number}/{len(runs)}] {run}"
        if run.metrics() is not None:
            print(f"{head}: already finished", flush=True)
            continue
        print(f"{head}: {run.folder}", flush=True)
        failure = train_and_test(run)
        if failure is not None:
            print(f"failed: {failure}", file=sys.stderr, flush=True)
            succeeded = False
    return succeeded


def collect(runs: Sequence[Run], args: argparse.Namespace, swept: dict[str, list]) -> bool:
    """Write the table and the plot and print the table; returns whether no run is missing."""
    from sweeps.report import draw, headline_metrics, markdown, write_csv

    from mmdet_lesion.io import atomic_write

    measured = [(run, run.metrics()) for run in runs]
    results = [(run, metrics) for run, metrics in measured if metrics is not None]
    missing = [run for run, metrics in measured if metrics is None]
    if any(run.values for run, _ in results):
        names = headline_metrics(results, args.metrics)
        table = markdown(results, names)
        with atomic_write(args.work_dir / "sweep.md") as temporary:
            temporary.write_text(table, encoding="utf-8")
        write_csv(args.work_dir / "sweep.csv", results)
        draw(args.work_dir / "sweep.png", results, names, swept)
        print(table)
        print(f"{args.work_dir}: sweep.md, sweep.csv, sweep.png")
    if args.collect:
        for run in missing:
            print(f"missing: {run} ({run.folder})", file=sys.stderr)
    return not missing


@tool_main("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = parse_args(words)

    from sweeps.runs import Launch, default_work_dir, parse_values, plan_runs

    swept = parse_values(args.settings)
    args.work_dir = args.work_dir or default_work_dir(args.config, swept)
    flags = {"--amp": args.amp, "--auto-scale-lr": args.auto_scale_lr}
    runs = plan_runs(
        args.config,
        swept,
        args.work_dir,
        options=args.cfg_options,
        seeds=args.seeds,
        baseline=args.baseline,
        launch=Launch(args.gpus, tuple(flag for flag, given in flags.items() if given)),
    )
    if args.commands:
        for run in runs:
            if run.metrics() is None:
                print(run.shell_command())
        words[words.index("--commands")] = "--collect"
        print(shlex.join([sys.executable, str(Path(__file__)), *words]))
        return 0
    succeeded = args.collect or train_and_test_all(runs)
    return 0 if collect(runs, args, swept) and succeeded else 1


if __name__ == "__main__":
    sys.exit(main())
