"""Short training with recorded quantities, followed by a test."""

from __future__ import annotations

import math
import resource
import sys
import time
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mmdet_lesion.models.semi_supervised.objectives import JointObjective

__all__ = ["METRICS", "Recorder", "run_trial", "summarize"]

#: The first of these metrics that a test returns is its figure.
METRICS = ("froc/ap", "froc/cpm", "froc/mean_sensitivity", "coco/bbox_mAP_50")
#: Layers whose outputs are classification logits, by the last part of their name.
_LOGITS = ("rpn_cls", "objectness", "fc_cls", "retina_cls", "conv_cls")


class Recorder(Hook):
    """Record the quantities by which a rehearsal is evaluated, in every iteration."""

    priority = "HIGHEST"

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self._logit_std = 0.0
        self._guess_time = 0.0
        self._start = 0.0

    def before_train(self, runner: Runner) -> None:
        """Instrument the initialized model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for name, layer in model.named_modules():
            if name.rpartition(".")[2] in _LOGITS:
                layer.register_forward_hook(self._watch_logits)
        for objective in getattr(model, "objectives", ()):
            if isinstance(objective, JointObjective):
                objective.guess = self._timed(objective.guess)
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def _watch_logits(self, layer: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        if layer.training and torch.is_grad_enabled():
            self._logit_std = max(self._logit_std, float(output.detach().float().std()))

    def _timed(self, function: Any) -> Any:
        def timed(*args: Any, **kwargs: Any) -> Any:
            _synchronize()
            start = time.perf_counter()
            result = function(*args, **kwargs)
            _synchronize()
            self._guess_time = time.perf_counter() - start
            return result

        return timed

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Start the clock."""
        self._logit_std = self._guess_time = 0.0
        _synchronize()
        self._start = time.perf_counter()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Record the iteration."""
        _synchronize()
        row = {"iter": runner.iter, "time": time.perf_counter() - self._start}
        for name, value in (outputs or {}).items():
            row[name] = float(torch.as_tensor(value).float().mean())
        for name in ("mined_per_image", "mined_repeats"):
            if f"train/{name}" in runner.message_hub.log_scalars:
                row[name] = runner.message_hub.get_scalar(f"train/{name}").current()
        if "train/grad_norm" in runner.message_hub.log_scalars:
            row["grad_norm"] = runner.message_hub.get_scalar("train/grad_norm").current()
        row["logit_std"] = self._logit_std
        if self._guess_time:
            row["guess_time"] = self._guess_time
        self.rows.append(row)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_trial(cfg: Config) -> dict[str, Any]:
    """Train and test a config.

    Args:
        cfg: A config at the scale of a rehearsal.

    Returns:
        A dict with ``rows`` (one dict per iteration), ``metrics`` of the test, peak ``memory`` in
        GiB (of the GPU if there is one, otherwise of this process), ``parameters``, ``seconds`` of
        training, and ``failure``, the error that ended the training.
    """
    runner = Runner.from_cfg(cfg)
    recorder = Recorder()
    runner.register_hook(recorder)
    result: dict[str, Any] = {
        "parameters": sum(p.numel() for p in runner.model.parameters() if p.requires_grad),
        "metrics": {},
        "failure": None,
    }
    start = time.perf_counter()
    try:
        runner.train()
        result["seconds"] = time.perf_counter() - start
        result["memory"] = _peak_memory()
        result["metrics"] = {k: float(v) for k, v in runner.test().items()}
    except (RuntimeError, ValueError, FloatingPointError) as error:
        # A diverging training may raise anywhere; the rows recorded until then are evaluated.
        result.setdefault("seconds", time.perf_counter() - start)
        result["failure"] = f"{type(error).__name__}: {str(error).splitlines()[0]}"
    result.setdefault("memory", _peak_memory())
    result["rows"] = recorder.rows
    return result


def _peak_memory() -> float:
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    # In KiB on Linux, in bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def summarize(result: dict[str, Any], anchors: int | None = None) -> dict[str, float]:
    """Return the figures that are compared with the bounds.

    Args:
        result: Result of :func:`run_trial`.
        anchors: Number of anchors of an unlabeled patch, for the fraction of guessed positives.

    Returns:
        Name in ``bounds.json`` → figure, for the figures that apply to the config.
    """
    rows = result["rows"]
    figures: dict[str, float] = {}
    if rows:
        tenth, quarter = max(1, len(rows) // 10), max(1, len(rows) // 4)
        loss = np.array([row["loss"] for row in rows])
        begin = float(np.median(loss[:tenth]))
        figures["final_loss_ratio"] = float(np.median(loss[-tenth:])) / begin
        figures["peak_loss_ratio"] = float(np.max(loss[tenth:], initial=begin)) / begin
        figures["logit_std"] = float(np.max([row["logit_std"] for row in rows]))
        norms = [row["grad_norm"] for row in rows[-quarter:] if "grad_norm" in row]
        if norms:
            figures["grad_norm"] = float(np.median(norms))
        late = rows[-quarter:]
        if "guessed_pos" in rows[0] and anchors:
            guessed = np.array([row["guessed_pos"] for row in rows]) / anchors
            parts = np.array_split(guessed, min(10, len(guessed)))
            figures["guessed_pos_share"] = float(max(part.mean() for part in parts))
            halves = [
                np.median([row[name] for row in late])
                for name in ("loss_cls_unlabeled", "loss_cls")
            ]
            figures["unlabeled_loss_ratio"] = float(halves[0] / max(halves[1], 1e-9))
            guess, step = (np.median([row[key] for row in rows]) for key in ("guess_time", "time"))
            figures["guess_time_ratio"] = float(guess / (step - guess))
        if "mined_per_image" in rows[-1]:
            mined = [row["mined_per_image"] for row in late if "mined_per_image" in row]
            figures["mined_per_image"] = float(np.mean(mined))
    name = next((name for name in METRICS if name in result["metrics"]), None)
    figures["overfit"] = result["metrics"][name] if name else math.nan
    return figures
