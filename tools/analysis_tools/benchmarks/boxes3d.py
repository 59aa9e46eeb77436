"""Benchmark of 3D non-maximum suppression against a Python loop."""

from __future__ import annotations

import argparse
import statistics

import torch
from rich.console import Console

from mmdet_lesion.command_line import fraction, positive
from mmdet_lesion.structures import box_iou3d, nms3d

from .common import seconds, table_of


def detected_boxes(num: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return clustered boxes ``(num, 6)`` and scores in a scan of 300 voxels."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.rand(max(1, num // 50), 3, generator=generator) * 300
    centers = centers[torch.randint(len(centers), (num,), generator=generator)]
    centers = centers + torch.randn(num, 3, generator=generator) * 3
    half = 2 + torch.rand(num, 1, generator=generator) * 8
    return torch.cat((centers - half, centers + half), dim=1), torch.rand(num, generator=generator)


def loop_nms(boxes: torch.Tensor, scores: torch.Tensor, iou_thr: float) -> torch.Tensor:
    """Non-maximum suppression as a loop with one step per kept box."""
    left, kept = scores.argsort(descending=True, stable=True), []
    while len(left):
        kept.append(int(left[0]))
        overlaps = box_iou3d(boxes[left[:1]], boxes[left[1:]])[0]
        left = left[1:][overlaps <= iou_thr]
    return torch.tensor(kept)


def measure_nms3d(num: int, iou_thr: float, repeats: int) -> tuple[float, float, int]:
    """Return the median seconds of :func:`nms3d` and of the loop, and the number of kept boxes.

    Raises:
        RuntimeError: The kept boxes differ.
    """
    boxes, scores = detected_boxes(num)
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        fast, kept = seconds(lambda: nms3d(boxes, scores, iou_thr))
        slow, expected = seconds(lambda: loop_nms(boxes, scores, iou_thr))
        times[0].append(fast)
        times[1].append(slow)
        if not torch.equal(kept, expected):
            raise RuntimeError(f"nms3d keeps {len(kept)} boxes, the loop {len(expected)}")
    return statistics.median(times[0]), statistics.median(times[1]), len(kept)


def run_nms3d(options: argparse.Namespace) -> int:
    """Compare blockwise suppression with a loop."""
    title = f"3D NMS of {options.boxes:,} boxes, median of {options.repeats}"
    table = table_of(title, "IoU", "kept", "nms3d, ms", "loop, ms", "times as long")
    for iou_thr in options.iou:
        fast, slow, kept = measure_nms3d(options.boxes, iou_thr, options.repeats)
        numbers = (f"{1e3 * fast:.1f}", f"{1e3 * slow:.1f}", f"{slow / fast:.1f}")
        table.add_row(f"{iou_thr:g}", str(kept), *numbers)
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    nms = commands.add_parser("nms3d", help="3D non-maximum suppression against a loop")
    nms.add_argument("--boxes", type=positive, default=10000, help="(default: 10000)")
    nms.add_argument("--iou", type=fraction, nargs="+", default=[0.1, 0.5], help="thresholds")
    nms.add_argument("--repeats", type=positive, default=7, help="runs (default: 7)")
    nms.set_defaults(run=run_nms3d)
