"""Benchmark of A3D's slice mixing against einsum."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from rich.console import Console

from mmdet_lesion.command_line import positive
from mmdet_lesion.models import A3DConv

from .common import seconds, table_of


def measure_mixing(channels: int, size: int, repeats: int) -> tuple[float, float]:
    """Time A3D's slice mixing, forward and backward, in two memory layouts.

    This package concatenates the slices along the height of one image; the alternative keeps them
    in the batch dimension and mixes them by ``einsum``. Both run alternately and must agree.

    Args:
        channels: Channels of a slice.
        size: Rows and columns of a slice.
        repeats: Number of repeats.

    Returns:
        Median seconds of this package's layout and of ``einsum``.

    Raises:
        RuntimeError: The results differ.
    """
    depth, stacks = 7, 2
    layer = A3DConv(channels, 1, 1, num_slices=depth)
    slices = torch.randn(stacks, channels, depth, size, size, requires_grad=True)
    batch = slices.detach().transpose(1, 2).flatten(0, 1).contiguous().requires_grad_()

    def einsum(x: torch.Tensor) -> torch.Tensor:
        x = x.unflatten(0, (stacks, depth))
        return torch.einsum("dkc,ndchw->nkchw", layer.mixing, x).flatten(0, 1).contiguous()

    def run(mix: Callable, x: torch.Tensor) -> torch.Tensor:
        result = mix(x)
        result.backward(torch.ones_like(result))
        return result.detach()

    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        fast, ours = seconds(lambda: run(lambda x: layer.mix(x, None), slices))
        slow, theirs = seconds(lambda: run(einsum, batch))
        theirs = theirs.unflatten(0, (stacks, depth)).transpose(1, 2)
        if not torch.allclose(ours, theirs, atol=1e-4):
            raise RuntimeError("slice mixing differs between the two layouts")
        times[0].append(fast)
        times[1].append(slow)
    return statistics.median(times[0]), statistics.median(times[1])


def run_mixing(options: argparse.Namespace) -> int:
    """Compare A3D's mixing on concatenated slices with einsum on a batch of slices."""
    fast, slow = measure_mixing(options.channels, options.size, options.repeats)
    title = (
        f"mixing 2 slice stacks of 7 slices, {options.channels} channels of {options.size} x "
        f"{options.size}, forward and backward, median of {options.repeats}"
    )
    table = table_of(title, "way", "ms", "times as long")
    table.add_row("tall images", f"{1e3 * fast:.0f}", "1")
    table.add_row("einsum over slices", f"{1e3 * slow:.0f}", f"{slow / fast:.1f}")
    Console().print(table)
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    mixing = commands.add_parser("mixing", help="A3D's slice mixing against einsum")
    mixing.add_argument("--channels", type=positive, default=256, help="(default: 256)")
    mixing.add_argument("--size", type=positive, default=64, help="rows and columns (default: 64)")
    mixing.add_argument("--repeats", type=positive, default=9, help="turns (default: 9)")
    mixing.set_defaults(run=run_mixing)
