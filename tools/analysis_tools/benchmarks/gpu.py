"""Benchmark of training steps on a GPU: time, memory, data loading and numerical agreement."""

from __future__ import annotations

import argparse
import copy
import gc
import json
import logging
import platform
import statistics
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch.utils.data import Dataset

from mmdet_lesion import InputError
from mmdet_lesion.apis.detector import read_config
from mmdet_lesion.command_line import config_file, count, positive
from mmdet_lesion.io import read_json

from .agreement import compare_with_cpu, estimate_norm_statistics, first_samples, seed_all
from .common import ROOT
from .phantom_data import FULL_PATCH, FULL_SIZE, training_parts, use_phantoms

MAIN_ROWS = [
    ROOT / "configs" / f"{name}.py"
    for name in (
        "uld/mean_teacher_deeplesion",
        "partial_label/faster_rcnn_3slice_neg_mask",
        "partial_label/a3d_7slice_neg_mask",
        "focalmix/focalmix_luna16_100",
    )
]
PRECISIONS = ("float32", "amp")
#: Learning rate of the first warm-up steps, at which untrained weights hardly change.
RATE_FACTOR = 1e-3


class StepRecord:
    """Durations of the training steps and of the waits for their batches, in seconds."""

    def __init__(self, device: str, warmup: int) -> None:
        self.device = device
        self.warmup = warmup
        self.steps: list[float] = []
        self.waits: list[float] = []
        self.shapes: set[tuple[int, ...]] = set()
        self.losses: list[float] = []
        self._count = 0
        self._started = self._ended = 0.0

    def now(self) -> float:
        """Return the time after synchronizing with the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def start(self, batch: dict) -> None:
        """Record the start of a step."""
        self._started = self.now()
        if self._count >= self.warmup and self._ended:
            self.waits.append(self._started - self._ended)
        elif self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        self.shapes.update(tuple(image.shape) for image in batch["inputs"])

    def end(self, loss: float) -> None:
        """Record the end of a step."""
        self._ended = self.now()
        self._count += 1
        if self._count > self.warmup:
            self.steps.append(self._ended - self._started)
            self.losses.append(loss)


class StepStart(Hook):
    """Hook that starts the clock before all other hooks."""

    priority = "HIGHEST"

    def __init__(self, record: StepRecord) -> None:
        self.record = record

    def before_train(self, runner: Runner) -> None:
        """Estimate the batch norm statistics before a mean teacher copies them."""
        estimate_norm_statistics(runner.model, first_samples(runner.train_dataloader.dataset))

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict = None) -> None:
        """Start the clock."""
        self.record.start(data_batch)


class StepEnd(Hook):
    """Hook that stops the clock after all other hooks."""

    priority = "LOWEST"

    def __init__(self, record: StepRecord) -> None:
        self.record = record

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict = None, outputs: dict = None
    ) -> None:
        """Stop the clock."""
        self.record.end(float(outputs["loss"]))


def drop_pretrained(node: Any, path: str = "model") -> list[str]:
    """Remove ``init_cfg``s that load a file, in place; returns their paths."""
    dropped = []
    if isinstance(node, dict):
        init = node.get("init_cfg")
        if isinstance(init, dict) and init.get("type") == "Pretrained":
            node["init_cfg"] = None
            dropped.append(f"{path}.init_cfg ({init.get('checkpoint')})")
        for key, value in node.items():
            dropped += drop_pretrained(value, f"{path}.{key}")
    elif isinstance(node, (list, tuple)):
        for index, value in enumerate(node):
            dropped += drop_pretrained(value, f"{path}[{index}]")
    return dropped


def timing_config(
    cfg: Config, work_dir: Path, precision: str, steps: int, batch: int | None, workers: int | None
) -> Config:
    """Shorten a training config to a few steps at a constant low rate, without tests or output.

    Model, losses, optimizer, mean-teacher hooks and the data loader are unchanged.

    Args:
        cfg: A config whose data exist.
        work_dir: Where mmengine writes its log.
        precision: ``'float32'`` or ``'amp'``.
        steps: Number of steps.
        batch: Overrides the batch size of the config.
        workers: Overrides the number of data-loading processes.
    """
    cfg = copy.deepcopy(cfg)
    loader = cfg.train_dataloader
    if loader.sampler.type == "DefaultSampler":
        # With few phantoms, an epoch would end every few steps.
        loader.sampler = dict(type="InfiniteSampler", shuffle=True)
    if batch is not None:
        loader.batch_size = batch
        if "batch_size" in loader.sampler:
            loader.sampler.batch_size = batch
    if workers is not None:
        loader.num_workers = workers
    loader.persistent_workers = loader.num_workers > 0
    cfg.train_cfg = dict(type="IterBasedTrainLoop", max_iters=steps, val_interval=steps + 1)
    for kind in ("val", "test"):
        for key in ("dataloader", "cfg", "evaluator"):
            cfg[f"{kind}_{key}"] = None
    cfg.param_scheduler = None
    cfg.optim_wrapper.optimizer.lr *= RATE_FACTOR
    if precision == "amp":
        cfg.optim_wrapper.type = "AmpOptimWrapper"
        cfg.optim_wrapper.loss_scale = "dynamic"
    cfg.default_hooks.pop("visualization", None)
    # mmengine adds these unless they are None.
    cfg.default_hooks.update(checkpoint=None, logger=None)
    cfg.log_processor = dict(type="LogProcessor", by_epoch=False)
    cfg.log_level = logging.WARNING
    cfg.work_dir = str(work_dir)
    cfg.experiment_name = f"{Path(cfg.filename).stem}_{precision}_{time.time_ns()}"
    # mmengine reuses a visualizer of the same name, which would write to an earlier run's folder.
    cfg.visualizer = dict(type="Visualizer", name=cfg.experiment_name)
    return cfg


def measure_steps(
    cfg: Config, folder: Path, precision: str, device: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Train for a few steps and return a row of figures.

    Args:
        cfg: A config whose data exist.
        folder: Where mmengine writes its log.
        precision: ``'float32'`` or ``'amp'``.
        device: ``'cuda'`` or ``'cpu'``.
        options: ``warmup``, ``steps``, ``batch`` and ``workers``.
    """
    if precision == "amp" and device == "cpu":
        return dict(status="skipped: mmengine's AmpOptimWrapper needs a GPU")
    cfg = timing_config(
        cfg,
        folder / "work_dir",
        precision,
        options.warmup + options.steps,
        options.batch_size,
        options.workers,
    )
    record = StepRecord(device, options.warmup)
    runner = Runner.from_cfg(cfg)
    if device == "cpu":
        runner.model.cpu()
    runner.register_hook(StepStart(record))
    runner.register_hook(StepEnd(record))
    runner.train()
    batch = cfg.train_dataloader.batch_size
    waited, worked = sum(record.waits), sum(record.steps)
    row = dict(
        status="ok",
        batch=batch,
        workers=cfg.train_dataloader.num_workers,
        shapes=[list(shape) for shape in sorted(record.shapes)],
        step_ms=1e3 * statistics.median(record.steps),
        slowest_step_ms=1e3 * max(record.steps),
        images_per_s=batch * len(record.steps) / (waited + worked),
        loading_share=waited / (waited + worked),
        mean_loss=statistics.fmean(record.losses),
    )
    if device == "cuda":
        row["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
        row["reserved_gib"] = torch.cuda.max_memory_reserved() / 2**30
    return row


def measure_agreement(cfg: Config, device: str, patch: int) -> dict[str, Any]:
    """Compare a config's model on a device and on the CPU, on one sample of each dataset.

    Args:
        cfg: A config whose data exist.
        device: ``'cuda'`` or ``'cpu'``.
        patch: Edge length of the patches; slices keep their size.
    """
    cfg = copy.deepcopy(cfg)
    for part in training_parts(cfg):
        for step in part.pipeline:
            if step.type == "LoadPatch":
                step.update(size=patch, positive=1.0)
    dataset: Dataset = DATASETS.build(cfg.train_dataloader.dataset)
    batch = first_samples(dataset)
    seed_all(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    estimate_norm_statistics(model, batch)
    shape = list(batch["inputs"][0].shape)
    return dict(status="ok", shape=shape, **compare_with_cpu(model, batch, device))


def guarded(function: Any, *args: Any) -> dict[str, Any] | None:
    """Call a measurement; an exception becomes its status, so that the others still run."""
    try:
        return function(*args)
    except torch.OutOfMemoryError:
        return dict(status="out of memory")
    except Exception as error:
        traceback.print_exc()
        first = (str(error).splitlines() or [""])[0]
        return dict(status=f"failed: {type(error).__name__}: {first}")
    finally:
        if torch.cuda.is_available():
            # The runner is part of a reference cycle; its memory would count in the next row.
            gc.collect()
            torch.cuda.empty_cache()


def describe_device(device: str) -> dict[str, Any]:
    """Return the device and versions that the figures depend on."""
    info = dict(
        device=device, python=platform.python_version(), torch=torch.__version__, name="CPU"
    )
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        info.update(
            name=properties.name,
            memory_gib=properties.total_memory / 2**30,
            capability=".".join(map(str, torch.cuda.get_device_capability())),
            cuda=torch.version.cuda,
            cudnn=torch.backends.cudnn.version(),
            tf32_matmul=torch.backends.cuda.matmul.allow_tf32,
            tf32_convolutions=torch.backends.cudnn.allow_tf32,
        )
    info["cpu_threads"] = torch.get_num_threads()
    return info


def markdown(result: dict[str, Any]) -> str:
    """Return the figures as Markdown tables."""

    def number(row: dict, key: str, form: str, factor: float = 1.0) -> str:
        value = row.get(key)
        return "–" if value is None else format(factor * value, form)

    device = result["device"]
    lines = [f"# Training steps on {device['name']}", ""]
    facts = (f"{key} {value}" for key, value in device.items() if key != "name")
    lines += [", ".join(facts) + ".", ""]
    lines += [
        "| config | precision | batch | step, ms (median) | slowest, ms | images/s "
        "| peak memory, GiB | loading, % of the time | status |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in result["rows"].items():
        for precision in PRECISIONS:
            row = rows.get(precision)
            if row is not None:
                cells = [
                    number(row, "batch", ".0f"),
                    number(row, "step_ms", ".1f"),
                    number(row, "slowest_step_ms", ".1f"),
                    number(row, "images_per_s", ".2f"),
                    number(row, "peak_gib", ".1f"),
                    number(row, "loading_share", ".1f", 100),
                    row["status"],
                ]
                lines.append(f"| {name} | {precision} | {' | '.join(cells)} |")
    lines += [
        "",
        "Agreement with the CPU in float32 without TF32, relative differences:",
        "",
        "| config | input | outputs | losses (worst) | gradients | predictions matched, % "
        "| their scores | their boxes, pixels | status |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in result["rows"].items():
        row = rows.get("agreement")
        if row is not None:
            worst = f" ({row['worst_loss']})" if "worst_loss" in row else ""
            cells = [
                " x ".join(map(str, row.get("shape", []))) or "–",
                number(row, "outputs", ".1e"),
                number(row, "losses", ".1e") + worst,
                number(row, "gradients", ".1e"),
                number(row, "matched", ".1f", 100),
                number(row, "score", ".1e"),
                number(row, "box", ".1e"),
                row["status"],
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def run_gpu(options: argparse.Namespace) -> int:
    """Measure configs; returns 1 if a measurement fails."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise InputError("torch finds no GPU; expected one, or --device cpu to try the command")
    register_all_modules(init_default_scope=True)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "gpu.json"
    result: dict[str, Any] = dict(rows={})
    if file.is_file():
        result = read_json(file)
    result["device"] = describe_device(options.device)
    failed = False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.data or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for path in options.config:
            name = f"{path.parent.name}/{path.stem}"
            cfg = read_config(path, keys=["model", "train_dataloader"])
            for dropped in drop_pretrained(cfg.model):
                print(f"{name}: pretrained weights are not loaded: {dropped}", flush=True)
            calls = {
                precision: (measure_steps, cfg, Path(temporary), precision, options.device, options)
                for precision in options.precision
            }
            if options.agreement:
                calls["agreement"] = (
                    measure_agreement,
                    cfg,
                    options.device,
                    min(options.patch, options.agreement_patch),
                )
            rows = result["rows"].setdefault(name, {})
            ready = guarded(use_phantoms, cfg, folder, options.size, options.patch)
            for key, call in calls.items():
                rows[key] = ready or guarded(*call)
                failed |= rows[key]["status"].startswith("failed")
                print(f"{name}, {key}: {json.dumps(rows[key])}", flush=True)
                # Written after each measurement, in case a time limit ends the process.
                file.write_text(json.dumps(result, indent=1) + "\n")
                (options.out / "gpu.md").write_text(markdown(result))
    print(markdown(result))
    return int(failed)


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    gpu = commands.add_parser(
        "gpu",
        help="time, memory and agreement of training steps",
        description="Trains configs for a few steps on phantoms and writes gpu.md and gpu.json. "
        "Rows of other configs in existing files are kept, so configs can be measured one by one. "
        "The options that override a config (batch size, workers, sizes) are for CPUs and tests.",
    )
    gpu.add_argument("--config", type=config_file, nargs="+", default=MAIN_ROWS)
    gpu.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    gpu.add_argument("--precision", choices=PRECISIONS, nargs="+", default=list(PRECISIONS))
    gpu.add_argument("--out", type=Path, default=Path("build/benchmark_gpu"))
    gpu.add_argument(
        "--data", type=Path, help="folder to keep the phantoms in (default: a temporary one)"
    )
    gpu.add_argument("--warmup", type=count, default=5, help="warm-up steps (default: 5)")
    gpu.add_argument("--steps", type=positive, default=20, help="measured steps (default: 20)")
    gpu.add_argument("--size", type=positive, default=FULL_SIZE, help="rows and columns of slices")
    gpu.add_argument("--patch", type=positive, default=FULL_PATCH, help="edge length of patches")
    gpu.add_argument(
        "--agreement-patch",
        type=positive,
        default=96,
        help="edge length for the comparison with the CPU",
    )
    gpu.add_argument("--no-agreement", dest="agreement", action="store_false")
    gpu.add_argument("--batch-size", type=positive, help="overrides the batch size of the config")
    gpu.add_argument("--workers", type=count, help="overrides the number of data-loading processes")
    gpu.set_defaults(run=run_gpu)
