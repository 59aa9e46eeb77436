"""Benchmark of the peak memory of a FocalMix training step."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData
from rich.console import Console

from mmdet_lesion import InputError
from mmdet_lesion.apis.detector import build_module, read_config
from mmdet_lesion.command_line import config_file, positive

from .common import ROOT, table_of

FOCALMIX = ROOT / "configs" / "focalmix" / "supervised_luna16_100.py"


def allocated_peak(function: Callable[[], object], device: str) -> int:
    """Return the peak number of bytes that a call allocates for tensors.

    On a GPU, it is reported by torch's allocator; on a CPU, it is the sum of the allocations in
    torch's profile. Neither includes scratch memory inside operators.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    activity = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[activity], profile_memory=True) as profiler:
        function()
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    held = np.cumsum([change for _, change in changes])
    return int(max(0, held.max(initial=0)))


def step_peak(config: Path, patch: int, batch: int, amp: bool, with_cp: bool, device: str) -> int:
    """Return the peak memory of one training step in bytes, including the state of Adam.

    The patches are labeled. Guessing targets for as many unlabeled patches needs less memory, since
    it stores nothing for the backward pass.

    Args:
        config: A config of FocalMix.
        patch: Edge length of the patches in voxels.
        batch: Number of patches.
        amp: Use mixed precision: float16 on a GPU, bfloat16 on a CPU.
        with_cp: Use gradient checkpointing in the backbone.
        device: ``'cpu'`` or ``'cuda'``.

    Raises:
        InputError: The config is not one of FocalMix, or the patch does not fit its strides.
    """
    register_all_modules(init_default_scope=True)
    cfg = read_config(config, keys=["model"]).model
    if cfg.get("type") != "FocalMix":
        raise InputError(f"{config} has a {cfg.get('type')} as model; expected a FocalMix")
    cfg.backbone.with_cp = with_cp
    model = build_module(cfg, f"{config}: model").to(device).train()
    samples = []
    for _ in range(batch):
        box = torch.tensor([[patch / 2 - 4.0] * 3 + [patch / 2 + 4.0] * 3])
        sample = DetDataSample()
        sample.gt_instances = InstanceData(bboxes=box, labels=torch.zeros(1, dtype=torch.long))
        samples.append(sample)
    data = dict(inputs=list(torch.rand(batch, 1, patch, patch, patch)), data_samples=samples)
    dtype = torch.float16 if device == "cuda" else torch.bfloat16

    def step() -> None:
        inputs = model.data_preprocessor(data, True)
        with torch.autocast(device, dtype=dtype, enabled=amp):
            losses = model(**inputs, mode="loss")
        model.parse_losses(losses)[0].backward()

    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    # Weights and Adam's two moments exist before the step; the gradients are part of its peak.
    return 3 * weights + allocated_peak(step, device)


def run_memory3d(options: argparse.Namespace) -> int:
    """Measure the peak memory of a training step on a GPU, or estimate it from small patches."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if options.probe[0] == options.probe[1]:
        raise InputError(f"--probe has {options.probe[0]} twice; expected two edge lengths")
    how = torch.cuda.get_device_name() if device == "cuda" else "estimated from CPU steps"
    title = f"one training step on patches of {options.patch} voxels, {how}"
    table = table_of(title, "settings", *(f"batch {batch}, GiB" for batch in options.batch_size))
    for amp, with_cp in ((False, False), (True, False), (False, True), (True, True)):
        settings = dict(config=options.config, amp=amp, with_cp=with_cp, device=device)
        if device == "cuda":
            peaks = [
                step_peak(patch=options.patch, batch=b, **settings) for b in options.batch_size
            ]
        else:
            # Two patch sizes separate the memory that grows with the patch from the constant part.
            small, large = (step_peak(patch=edge, batch=1, **settings) for edge in options.probe)
            low, high = (edge**3 for edge in options.probe)
            slope = (large - small) / (high - low)
            peaks = [small + slope * (b * options.patch**3 - low) for b in options.batch_size]
        names = [name for name, on in (("AMP", amp), ("checkpointing", with_cp)) if on]
        label = " and ".join(names) or "float32"
        table.add_row(label, *(f"{peak / 2**30:.1f}" for peak in peaks))
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    memory = commands.add_parser("memory3d", help="peak memory of a training step of FocalMix")
    memory.add_argument("--config", type=config_file, default=FOCALMIX, help="config to measure")
    memory.add_argument(
        "--patch", type=positive, default=160, help="edge length in voxels (default: 160)"
    )
    memory.add_argument("--batch-size", type=positive, nargs="+", default=[1, 2, 4], help="patches")
    memory.add_argument(
        "--probe",
        type=positive,
        nargs=2,
        default=[64, 96],
        help="edge lengths to measure without a GPU (default: 64 96)",
    )
    memory.set_defaults(run=run_memory3d)
