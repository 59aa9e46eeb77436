"""Tell in minutes whether a config is going to train.

Each config trains for some hundred iterations on a handful of labeled samples, with its own
network, losses, norms and samplers, and is then tested on them through its own test path. Two
questions are answered: is the training healthy (losses, gradients, logits, guessed and mined
positives within the bounds of ``rehearsal/bounds.json``), and can it overfit the samples? On a CPU
crops and batches are smaller than in the config; what differs is printed. Where the config's data
are not there, phantoms are made.

Examples::

    python tools/rehearse.py configs/uld/mean_teacher_deeplesion.py
    python tools/rehearse.py configs/focalmix/*.py --jobs 2 --out rehearsal
    python tools/rehearse.py my_config.py --device cuda --iters 500
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    from mmdet_lesion.command_line import positive

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument("--iters", type=positive, default=300, help="default: %(default)s")
    parser.add_argument(
        "--samples", type=positive, default=8, help="labeled samples (default: %(default)s)"
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, or cuda for the full size (default: %(default)s)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive,
        help="labeled images or patches a step (default: 2 on a CPU, the config's on a GPU)",
    )
    parser.add_argument(
        "--crop",
        type=positive,
        help="edge of slices in pixels or patches in voxels (default on a CPU: 128 and 48; on a "
        "GPU: whole slices and the config's patches)",
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="default: 0")
    parser.add_argument("--amp", action="store_true", help="mixed precision, on a GPU")
    parser.add_argument(
        "--out", type=Path, default=Path("rehearsal"), help="folder to write (default: rehearsal)"
    )
    parser.add_argument(
        "--jobs", type=positive, default=1, help="rehearsals at a time, one thread each if several"
    )
    parser.add_argument(
        "--again", action="store_true", help="repeat rehearsals whose result is there"
    )
    # How this tool calls itself, once for each rehearsal.
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args(args)


def rehearse(config: Path, seed: int, args: argparse.Namespace) -> None:
    """Rehearse one config in this process and write its result to ``args.worker``."""
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from mmengine.config import Config
    from mmengine.registry import init_default_scope
    from rehearsal.report import judge, plot_rows
    from rehearsal.shrink import Scale, rehearsal_config
    from rehearsal.trial import run_trial, summarize

    import mmdet_lesion  # noqa: F401

    cfg = Config.fromfile(config)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    volumes = cfg.model.type == "FocalMix"
    small = args.device == "cpu"
    crop = args.crop or ((48 if volumes else 128) if small else None)
    batch_size = args.batch_size or (2 if small else None)
    out = args.worker.parent
    scale = Scale(args.iters, args.samples, batch_size, crop, seed)
    cfg, changes, bare = rehearsal_config(cfg, scale, out, args.out / "data")
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        changes.append("mixed precision")
    print("\n".join(f"not as in {config}: {change}" for change in changes), flush=True)
    trial = run_trial(cfg, calibrate=bare)
    rows = trial.pop("rows")
    figures = summarize(dict(trial, rows=rows), _anchors(cfg, crop) if volumes else None)
    late = rows[-max(1, len(rows) // 10) :]
    result = dict(
        trial,
        config=_name(config),
        seed=seed,
        key=_key(config, seed, args),
        changes=changes,
        figures=figures,
        final_loss=median(row["loss"] for row in late) if rows else None,
        step_time=median(row["time"] for row in rows) if rows else None,
        broken=judge(figures, trial["failure"]),
    )
    if rows:
        plot_rows(rows, f"{_name(config)}, seed {seed}", out / "curves.png")
    with open(out / "rows.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    shutil.rmtree(out / "work_dir", ignore_errors=True)
    shutil.rmtree(out / "data", ignore_errors=True)
    args.worker.write_text(json.dumps(result, indent=2))


def _anchors(cfg: Any, crop: int | None) -> int:
    """Anchors of a patch: one a location of each level."""
    (size,) = {
        transform["size"]
        for dataset in cfg.train_dataloader.dataset.get("datasets", [cfg.train_dataloader.dataset])
        for transform in dataset.pipeline
        if transform["type"] == "LoadVolumeCrop"
    }
    return sum((size // s) ** 3 for s in cfg.model.bbox_head.anchor_generator.strides)


def _name(config: Path) -> str:
    path = config.resolve()
    return (
        str(path.relative_to(ROOT / "configs")) if ROOT / "configs" in path.parents else path.name
    )


def _key(config: Path, seed: int, args: argparse.Namespace) -> str:
    """Hash of the config and the settings; a result with the same one is used again."""
    from mmengine.config import Config

    settings = [args.iters, args.samples, args.device, args.batch_size, args.crop, args.amp, seed]
    text = Config.fromfile(config).pretty_text + repr(settings)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _run(config: Path, seed: int, args: argparse.Namespace) -> dict:
    """Rehearse one config in a process of its own, or take the result that is there."""
    folder = args.out / _name(config).removesuffix(".py") / f"seed{seed}"
    path = folder / "result.json"
    if path.is_file() and not args.again:
        result = json.loads(path.read_text())
        if result["key"] == _key(config, seed, args) and not result["failure"]:
            print(f"{_name(config)}, seed {seed}: result is there", flush=True)
            return result
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    words = [sys.executable, __file__, str(config), "--worker", str(path), "--out", str(args.out)]
    words += ["--seeds", str(seed), "--iters", str(args.iters), "--samples", str(args.samples)]
    words += ["--device", args.device] + (["--amp"] if args.amp else [])
    for name in ("batch_size", "crop"):
        if getattr(args, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    threads = str(1 if args.jobs > 1 else os.cpu_count())
    env = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    print(f"{_name(config)}, seed {seed}: begins, log in {folder / 'log.txt'}", flush=True)
    with open(folder / "log.txt", "w") as log:
        status = subprocess.run(words, env=env, stdout=log, stderr=log).returncode
    if not path.is_file():
        reason = (folder / "log.txt").read_text().strip().splitlines()[-1:] or [f"exit {status}"]
        return dict(
            config=_name(config), seed=seed, figures={}, changes=[], final_loss=None,
            step_time=None, memory=None,
            broken=[f"could not be rehearsed ({reason[0]})"],
        )  # fmt: skip
    result = json.loads(path.read_text())
    verdict = "; ".join(result["broken"]) or "passes"
    print(f"{_name(config)}, seed {seed}: {verdict}", flush=True)
    return result


def main(argv: list[str] | None = None) -> int:
    """Run the tool; 0 when every rehearsal passes, 1 when one does not, 2 for wrong arguments."""
    args = parse_args(argv)
    missing = [config for config in args.configs if not config.is_file()]
    if missing:
        print(f"rehearse: {missing[0]} is not there; expected a config", file=sys.stderr)
        return 2
    if args.worker:
        from mmdet_lesion import InputError

        try:
            rehearse(args.configs[0], args.seeds[0], args)
        except (InputError, OSError) as error:
            print(f"rehearse: {error}", file=sys.stderr)
            return 1
        return 0
    args.out.mkdir(parents=True, exist_ok=True)
    _prepare_phantoms(args)
    pairs = [(config, seed) for config in args.configs for seed in args.seeds]
    with ThreadPoolExecutor(args.jobs) as pool:
        results = list(pool.map(lambda pair: _run(*pair, args), pairs))
    from rehearsal.report import table_of

    table = table_of(results)
    (args.out / "table.md").write_text(table)
    print(f"\n{table}\ntable: {args.out / 'table.md'}; plots: curves.png beside each result")
    return int(any(result["broken"] for result in results))


def _prepare_phantoms(args: argparse.Namespace) -> None:
    """Make the phantoms that are needed before several processes would."""
    from mmengine.config import Config
    from rehearsal.handful import phantom_scans, phantom_slices
    from rehearsal.shrink import lacks_data

    lacking = [cfg for cfg in map(Config.fromfile, args.configs) if lacks_data(cfg)]
    kinds = {cfg.model.type == "FocalMix" for cfg in lacking}
    if False in kinds:
        phantom_slices(args.out / "data")
    if True in kinds:
        phantom_scans(args.out / "data")


if __name__ == "__main__":
    sys.exit(main())
