"""Benchmark of coarse-to-fine detection: what the switch costs in sensitivity and gains in time."""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmengine import DictAction
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from rich.console import Console
from torch import nn

from mmdet_lesion.apis.detector import build_model, build_module, read_config
from mmdet_lesion.command_line import config_file, positive
from mmdet_lesion.engine.config_checks import merge_options
from mmdet_lesion.errors import InputError
from mmdet_lesion.models import CoarseToFineDetector, FocalMix

from .common import table_of

Thresholds = tuple[float, float]
DEFAULT_SWITCHES = ((0.2, 0.5), (0.1, 0.8), (0.05, 0.9), (0.02, 1.0))


def switch(text: str) -> Thresholds:
    """Parse ``LOW,HIGH``."""
    try:
        low, high = map(float, text.split(","))
    except ValueError:
        low, high = 1.0, 0.0
    if not 0 <= low < high <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not LOW,HIGH with 0 <= LOW < HIGH <= 1")
    return low, high


def only_fine() -> Any:
    """Search whole volumes with the fine network alone."""
    return patch.object(CoarseToFineDetector, "predict_patches", FocalMix.predict_patches)


@dataclass
class Row:
    """A way of detection, and what was measured.

    Args:
        name: Name in the table.
        switch_thr: Thresholds of the switch.
        context: Returns the context to detect in.
        seconds: Seconds of each scan.
        shares: Fraction of each scan that the coarse network decides.
        boxes: Boxes of each scan.
    """

    name: str
    switch_thr: Thresholds
    evaluator: Evaluator
    context: Callable[[], Any] = nullcontext
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    boxes: list[int] = field(default_factory=list)

    def measure(self, model: nn.Module, data: dict, repeats: int) -> None:
        """Detect in a scan."""
        model.test_cfg["switch_thr"] = self.switch_thr
        times = []
        for _ in range(repeats):
            with self.context(), torch.no_grad():
                start = _now()
                results = model.test_step(pseudo_collate([data]))
                times.append(_now() - start)
        (result,) = results
        self.seconds.append(float(np.median(times)))
        self.shares.append(result.pred_instances.metainfo.get("coarse_share", 0.0))
        self.boxes.append(len(result.pred_instances))
        self.evaluator.process(data_samples=results)

    def cpm(self) -> float:
        """Return the CPM of all scans."""
        logger = MMLogger.get_current_instance()
        level = logger.level
        logger.setLevel(logging.WARNING)
        try:
            return self.evaluator.evaluate(len(self.seconds))["froc/cpm"]
        finally:
            logger.setLevel(level)


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def run_switch(options: argparse.Namespace) -> int:
    """Detect in the test scans of a config with several thresholds of the switch."""
    torch.set_num_threads(options.threads)
    cfg = read_config(options.config, keys=("model",))
    merge_options(cfg, options.cfg_options, options.config)
    if cfg.model.get("type") != "CoarseToFineDetector":
        raise InputError(
            f"{options.config} has a {cfg.model.get('type')} as model; expected a "
            "CoarseToFineDetector"
        )
    cfg = read_config(cfg, keys=("test_dataloader", "test_evaluator"))
    model = build_model(cfg, options.checkpoint, options.device)
    where = f"{options.config}: test_dataloader.dataset"
    dataset = build_module(cfg.test_dataloader.dataset, where, DATASETS)

    def row(name: str, switch_thr: Thresholds, **kwargs: Any) -> Row:
        return Row(name, switch_thr, Evaluator(cfg.test_evaluator), **kwargs)

    rows = [
        row("coarse everywhere", (0.0, 0.0)),
        row("fine everywhere", (0.0, 1.0), context=only_fine),
        *(row(f"switch, {low:g} to {high:g}", (low, high)) for low, high in options.switch),
    ]
    scans = min(options.scans or len(dataset), len(dataset))
    nodules = 0
    for index in range(scans):
        data = dataset[index]
        nodules += len(data["data_samples"].metainfo["nodules"])
        for one in rows:
            one.measure(model, data, options.repeats)
        Console(stderr=True).print(f"scan {index + 1} of {scans}")
    table = table_of(
        f"{options.config.name}, {scans} scans with {nodules} nodules, {model.test_cfg['nms']}, "
        f"{options.threads} threads, {next(model.parameters()).device}, median of "
        f"{options.repeats}",
        *("inference", "CPM (%)", "seconds per scan", "relative", "decided at low resolution (%)"),
        "boxes per scan",
    )
    fine = np.mean(rows[1].seconds)
    for one in rows:
        table.add_row(
            one.name,
            f"{100 * one.cpm():.1f}" if nodules else "–",
            f"{np.mean(one.seconds):.2f}",
            f"{np.mean(one.seconds) / fine:.2f}",
            f"{100 * np.mean(one.shares):.1f}",
            f"{np.mean(one.boxes):.1f}",
        )
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "coarse-to-fine", help="sensitivity and time of a coarse-to-fine detector, by thresholds"
    )
    parser.add_argument("config", type=config_file)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--switch",
        type=switch,
        nargs="+",
        default=DEFAULT_SWITCHES,
        metavar="LOW,HIGH",
        help="scores between which the fine network is asked (default: "
        f"{' '.join(f'{low:g},{high:g}' for low, high in DEFAULT_SWITCHES)})",
    )
    parser.add_argument("--scans", type=positive, help="first scans of the test set (default: all)")
    parser.add_argument("--repeats", type=positive, default=1, help="turns (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda:0, … (default: auto)")
    parser.add_argument("--threads", type=positive, default=torch.get_num_threads())
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, default={})
    parser.set_defaults(run=run_switch)
