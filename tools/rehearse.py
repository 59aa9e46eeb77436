"""Check within minutes whether a config can train.

Each config is trained for a few hundred iterations on a few labeled samples and tested on the same
samples, with its own network, losses, norms, samplers and test pipeline. The tool checks that
losses, gradients, logits, and guessed and mined positives stay within the bounds of
``rehearsal/bounds.json``, and that the model overfits the samples. On a CPU, crops and batches are
smaller than in the config; all changes are printed. Phantoms replace missing data.

Examples::

    python tools/rehearse.py configs/uld/mean_teacher_deeplesion.py
    python tools/rehearse.py configs/focalmix/*.py --workers 2 --out rehearsal
    python tools/rehearse.py my_config.py --device cuda --iters 500
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from mmdet_lesion.command_line import config_file, positive, random_seed, tool_main
from mmdet_lesion.errors import InputError


def parse_args(args: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", type=config_file, metavar="CONFIG")
    parser.add_argument(
        "--iters",
        type=positive,
        help="training iterations (default: 300, and 800 for configs on 3D patches)",
    )
    parser.add_argument(
        "--samples",
        type=positive,
        help="labeled samples (default: 4, and 2 for configs on 3D patches)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, or cuda for full size (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="labeled images or patches in a batch (default: 2 on a CPU, the config's on a GPU)",
    )
    parser.add_argument(
        "--crop",
        type=positive,
        help="edge length of slices in pixels or patches in voxels (default on a CPU: 96 and 32; "
        "on a GPU: whole slices and the config's patches)",
    )
    parser.add_argument(
        "--seeds", type=random_seed, nargs="+", default=[0], help="random seeds (default: 0)"
    )
    parser.add_argument("--amp", action="store_true", help="train with mixed precision on a GPU")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("rehearsal"),
        help="folder to write to (default: %(default)s)",
    )
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        help="number of parallel rehearsals; one thread each if more than one (default: 1)",
    )
    parser.add_argument("--overwrite", action="store_true", help="repeat finished rehearsals")
    # The tool starts itself with this flag once for each rehearsal.
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(args)


def _run(one: Any, config: Path, args: argparse.Namespace) -> dict:
    """Rehearse one config in a separate process."""
    words = [sys.executable, __file__, str(config), "--one", "--out", str(args.out)]
    words += ["--seeds", str(one.seed), "--device", args.device]
    words += ["--amp"] if args.amp else []
    for name in ("iters", "samples", "batch_size", "crop"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    threads = str(1 if args.workers > 1 else os.cpu_count())
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    log = one.folder / "log.txt"
    print(f"{one.name}, seed {one.seed}: started, log in {log}", flush=True)
    with open(log, "w") as file:
        status = subprocess.run(words, env=env, stdout=file, stderr=file).returncode
    path = one.folder / "result.json"
    if not path.is_file():
        reason = log.read_text().strip().splitlines()[-1:] or [f"exit status {status}"]
        return dict(
            config=one.name, seed=one.seed, figures={}, changes=one.changes, final_loss=None,
            step_time=None, memory=None, broken=[f"ended without a result ({reason[0]})"],
        )  # fmt: skip
    result = json.loads(path.read_text())
    verdict = "; ".join(result["broken"]) or "passes"
    print(f"{one.name}, seed {one.seed}: {verdict}", flush=True)
    return result


def _known_results(out: Path) -> dict[str, dict]:
    """Return the results of earlier calls by key, without those of failed trainings."""
    found = [json.loads(path.read_text()) for path in sorted(out.glob("**/result.json"))]
    return {result["key"]: result for result in found if not result["failure"]}


@tool_main("run the same command again to continue")
def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; returns 0 if every rehearsal passes and 1 if one does not."""
    args = parse_args(argv)
    for config in args.configs:
        if not config.is_file():
            raise InputError(f"{config} does not exist; expected a config")
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if args.one:
        from rehearsal.plan import plan, rehearse

        rehearse(plan(args.configs[0], args.seeds[0], args))
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    results = _rehearse_all(args)
    from rehearsal.report import table_of

    table = table_of(results)
    (args.out / "table.md").write_text(table)
    print(f"\n{table}\ntable: {args.out / 'table.md'}; plots: curves.png next to each result")
    return int(any(result["broken"] for result in results))


def _rehearse_all(args: argparse.Namespace) -> list[dict]:
    """Return the results of all configs and seeds in order; equivalent rehearsals run once."""
    from rehearsal.plan import plan

    known = {} if args.overwrite else _known_results(args.out)
    pairs = [(config, seed) for config in args.configs for seed in args.seeds]
    plans, running = [], {}
    with ThreadPoolExecutor(args.workers) as pool:
        for config, seed in pairs:
            one = plan(config, seed, args)
            plans.append(one)
            if one.key in known:
                print(f"{one.name}, seed {seed}: result of {known[one.key]['config']} reused")
                shutil.rmtree(one.folder / "data", ignore_errors=True)
            elif one.key in running:
                shutil.rmtree(one.folder / "data", ignore_errors=True)
            else:
                (one.folder / "result.json").unlink(missing_ok=True)
                running[one.key] = pool.submit(_run, one, config, args)
    known.update({key: future.result() for key, future in running.items()})
    results = []
    for one in plans:
        result = known[one.key]
        # The figures may be those of an equivalent config; the name and the changes are not.
        results.append(
            result | dict(config=one.name, same_as=result["config"], changes=one.changes)
        )
    return results


if __name__ == "__main__":
    sys.exit(main())
