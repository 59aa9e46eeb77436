"""Benchmark of detection in a scan: what each way of saving computation gains."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn

from mmdet_lesion.apis import LesionInferencer
from mmdet_lesion.apis import inferencer as apis
from mmdet_lesion.apis.lesions import Lesion
from mmdet_lesion.command_line import config_file, fraction, positive
from mmdet_lesion.errors import InputError
from mmdet_lesion.io.scans import find_scans, read_scan
from mmdet_lesion.models import FocalMix, FocalMixHead
from mmdet_lesion.models.layers.winograd_conv import WinogradConv
from mmdet_lesion.processes import keep_freed_memory
from mmdet_lesion.structures import Volume, box_iou3d, find_body

from .common import table_of


@contextmanager
def without_memory(inferencer: LesionInferencer) -> Iterator[None]:
    """Return freed memory to the system."""
    keep_freed_memory(False)
    yield
    keep_freed_memory()


def without_body(inferencer: LesionInferencer) -> Any:
    """Search air and tables, too."""
    return patch.object(inferencer.detector, "skip_air", False)


def without_tiles(inferencer: LesionInferencer) -> Any:
    """Compute the 3x3 convolution of the RPN directly, on whole maps."""
    return patch.object(WinogradConv, "accepts", staticmethod(lambda conv: False))


def without_merging(inferencer: LesionInferencer) -> Any:
    """Compute patches of the size in the config."""
    predict = FocalMix.predict_patches

    def separate(self: FocalMix, *args: Any, **kwargs: Any) -> Any:
        return predict(self, *args, **{**kwargs, "merge": False})

    return patch.object(FocalMix, "predict_patches", separate)


def without_candidates(inferencer: LesionInferencer) -> Any:
    """Compute the box offsets of all anchors."""

    def dense(self: FocalMixHead, x: Tensor, where: Tensor) -> Tensor:
        return self.forward_bbox([x[None]])[0][0].flatten(1)[:, where].t()

    return patch.object(FocalMixHead, "offsets_at", dense)


_SLICES = {
    "freed memory kept": without_memory,
    "body only": without_body,
    "RPN convolution in tiles of the body": without_tiles,
}
_VOLUMES = {
    "freed memory kept": without_memory,
    "body only": without_body,
    "merged patches": without_merging,
    "boxes of candidates only": without_candidates,
}


@contextmanager
def disabled(
    switches: list[Callable[[LesionInferencer], Any]], inferencer: LesionInferencer
) -> Iterator[None]:
    """Disable some ways of saving computation."""
    with ExitStack() as stack:
        for switch in switches:
            stack.enter_context(switch(inferencer))
        yield


def agreement(found: list[Lesion], expected: list[Lesion]) -> tuple[int, float]:
    """Count the expected lesions that were found, and return the largest difference of scores.

    Two boxes agree if their IoU is at least 0.9.
    """
    if not found or not expected:
        return 0, 0.0
    mine, theirs = (
        torch.tensor(np.array([lesion.box_voxels for lesion in lesions]))
        for lesions in (found, expected)
    )
    iou, twin = box_iou3d(theirs, mine).max(1)
    pairs = [(k, int(j)) for k, (j, same) in enumerate(zip(twin, iou >= 0.9)) if same]
    differences = [abs(expected[k].score - found[j].score) for k, j in pairs]
    return len(pairs), max(differences, default=0.0)


def in_body(lesions: list[Lesion], volume: Volume) -> list[Lesion]:
    """Return the lesions whose center is in the body."""
    body = find_body(volume.array, volume.spacing)
    if body is None or volume.geometry.symmetry_to_patient().axes[0] != 0:
        return lesions
    mask = body.cells(1, volume.shape[1:])
    centers = np.array([lesion.box_voxels for lesion in lesions]).reshape(-1, 2, 3).mean(1)
    z, y, x = np.minimum(centers[:, ::-1].astype(int), np.array(volume.shape) - 1).T
    return [lesion for lesion, inside in zip(lesions, mask[z, y, x]) if inside]


def without_limits(model: nn.Module) -> None:
    """Keep all boxes, so that those in air do not displace others."""
    if isinstance(model, FocalMix):
        model.test_cfg.update(nms_pre=10**5, max_per_img=10**5)


def run_scan(options: argparse.Namespace) -> int:
    """Detect lesions in a scan, with one more way of saving computation in each row."""
    torch.set_num_threads(options.threads)
    inferencer = LesionInferencer(options.config, options.checkpoint, device="cpu")
    model = inferencer.detector.model
    without_limits(model)
    sources = find_scans(options.scan)
    if len(sources) != 1:
        raise InputError(f"{options.scan} contains {len(sources)} scans; expected one")
    start = time.perf_counter()
    scan = read_scan(sources[0])
    reading = time.perf_counter() - start
    switches = _VOLUMES if isinstance(model, FocalMix) else _SLICES
    rows = [("whole slices or patches of the config", list(switches.values()))]
    rows += [
        (f"+ {name}", list(switches.values())[number:])
        for number, name in enumerate(switches, start=1)
    ]
    times: list[list[float]] = [[] for _ in rows]
    results: list[list[Lesion]] = [[] for _ in rows]
    for _ in range(options.repeats):
        for row, (name, off) in enumerate(rows):
            with disabled(off, inferencer), patch.object(apis, "MAX_LESIONS", 10**5):
                start = time.perf_counter()
                results[row], _ = inferencer.detect(scan, options.score_thr)
                times[row].append(time.perf_counter() - start)
            Console(stderr=True).print(f"{name}: {times[row][-1]:.1f} s")
    shape = " x ".join(map(str, scan.volume.shape))
    table = table_of(
        f"{options.scan.name}, {shape}, {options.config.name}, {options.threads} threads, median "
        f"of {options.repeats}; read in {reading:.1f} s",
        *("inference", "seconds", "relative", "lesions", "in the body", "of the first row's"),
        *("score differs by",),
    )
    expected = in_body(results[0], scan.volume)
    for (name, _), seconds, lesions in zip(rows, times, results):
        same, difference = agreement(lesions, expected)
        ratio = np.median(seconds) / np.median(times[0])
        inside = len(in_body(lesions, scan.volume))
        numbers = (f"{np.median(seconds):.0f}", f"{ratio:.2f}", str(len(lesions)), str(inside))
        table.add_row(name, *numbers, f"{same} of {len(expected)}", f"{difference:.4f}")
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    scan = commands.add_parser("scan", help="detection in a scan, with and without its shortcuts")
    scan.add_argument("scan", type=Path)
    scan.add_argument("--config", type=config_file, required=True)
    scan.add_argument("--checkpoint", type=Path, required=True)
    scan.add_argument("--score-thr", type=fraction, default=0.3, help="(default: 0.3)")
    scan.add_argument("--repeats", type=positive, default=1, help="turns (default: 1)")
    scan.add_argument("--threads", type=positive, default=torch.get_num_threads())
    scan.set_defaults(run=run_scan)
