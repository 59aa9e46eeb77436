"""Planning and execution of a rehearsal."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_lesion.engine import cpu_settings

from .report import evaluate, plot_rows
from .shrink import Scale, rehearsal_config
from .trial import run_trial, summarize

__all__ = ["Rehearsal", "plan", "rehearse"]

ROOT = Path(__file__).resolve().parents[2]
#: Config keys that determine the result of a rehearsal.
_DECISIVE = (
    *("model", "train_dataloader", "test_dataloader", "test_evaluator", "train_cfg"),
    *("optim_wrapper", "param_scheduler", "custom_hooks", "randomness"),
)


@dataclass
class Rehearsal:
    """A config at the scale of a rehearsal.

    Args:
        name: Path of the config within ``configs``, or its file name.
        seed: Seed of data and training.
        folder: Folder of its files.
        cfg: The reduced config.
        changes: Descriptions of the differences from the original config.
        key: Hash of all settings that determine the result.
    """

    name: str
    seed: int
    folder: Path
    cfg: Any
    changes: list[str]
    key: str


def plan(config: Path, seed: int, args: argparse.Namespace) -> Rehearsal:
    """Reduce a config to the scale of a rehearsal and crop its samples."""
    cfg = Config.fromfile(config)
    if args.device == "cpu":
        cfg.merge_from_dict(cpu_settings(cfg))
    small, volumes = args.device == "cpu", _on_volumes(cfg)
    crop = args.crop or ((32 if volumes else 96) if small else None)
    batch_size = args.batch_size or (2 if small else None)
    iters = args.iters or (800 if volumes else 300)
    samples = args.samples or (2 if volumes else 4)
    folder = args.out / _name(config).removesuffix(".py") / f"seed{seed}"
    scale = Scale(iters, samples, batch_size, crop, seed)
    cfg, changes = rehearsal_config(cfg, scale, folder, args.out / "data")
    if args.amp:
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        changes.append("mixed precision")
    # Configs that differ only in settings that a rehearsal replaces, such as lists of scans, share
    # a key.
    parts = {name: cfg.get(name) for name in _DECISIVE}
    # The line breaks of pretty_text depend on the length of the folder's name.
    text = json.dumps(Config(parts).to_dict(), sort_keys=True, default=str)
    text = text.replace(str(folder), "") + args.device
    key = hashlib.sha256(text.encode()).hexdigest()[:16]
    return Rehearsal(_name(config), seed, folder, cfg, changes, key)


def rehearse(one: Rehearsal) -> None:
    """Train and test in this process and write ``result.json``."""
    cfg, out = one.cfg, one.folder
    init_default_scope(cfg.get("default_scope", "mmdet"))
    print("\n".join(f"change to {one.name}: {change}" for change in one.changes), flush=True)
    trial = run_trial(cfg)
    rows = trial.pop("rows")
    figures = summarize(dict(trial, rows=rows), _anchors(cfg) if _on_volumes(cfg) else None)
    late = rows[-max(1, len(rows) // 10) :]
    result = dict(
        trial,
        config=one.name,
        seed=one.seed,
        key=one.key,
        changes=one.changes,
        figures=figures,
        final_loss=median(row["loss"] for row in late) if rows else None,
        step_time=median(row["time"] for row in rows) if rows else None,
        broken=evaluate(figures, trial["failure"]),
    )
    if rows:
        plot_rows(rows, f"{one.name}, seed {one.seed}", out / "curves.png")
    with open(out / "rows.jsonl", "w") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    shutil.rmtree(out / "work_dir", ignore_errors=True)
    shutil.rmtree(out / "data", ignore_errors=True)
    (out / "result.json").write_text(json.dumps(result, indent=2))


def _on_volumes(cfg: Any) -> bool:
    return cfg.model.type in ("FocalMix", "CoarseToFineDetector")


def _anchors(cfg: Any) -> int:
    """Return the number of anchors of a patch, one per location of each level."""
    (size,) = {
        transform["size"]
        for dataset in cfg.train_dataloader.dataset.get("datasets", [cfg.train_dataloader.dataset])
        for transform in dataset.pipeline
        if transform["type"] == "LoadPatch"
    }
    return sum((size // s) ** 3 for s in cfg.model.bbox_head.anchor_generator.strides)


def _name(config: Path) -> str:
    path = config.resolve()
    return (
        str(path.relative_to(ROOT / "configs")) if ROOT / "configs" in path.parents else path.name
    )
