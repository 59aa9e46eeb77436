"""Windows that cover a volume, and the part of the volume that each of them answers for."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Window", "sliding_windows"]


@dataclass(frozen=True)
class Window:
    """One position of the window.

    Args:
        place: Slices ``(z, y, x)`` of the volume that the window sees.
        core: Slices of the window that it answers for; the cores of all windows tile the volume.
    """

    place: tuple[slice, slice, slice]
    core: tuple[slice, slice, slice]


def sliding_windows(
    size: Sequence[int], window: Sequence[int], overlap: Sequence[int], stride: int
) -> list[Window]:
    """Cover a volume with overlapping windows.

    Neighbours share their overlap half and half, so that no window answers for what lies closer
    than about half the overlap to a border that is not the volume's own. An axis shorter than the
    window has one window, of its length.

    Args:
        size: Size ``(D, H, W)``; ``stride`` divides it.
        window: Size of the window; ``stride`` divides it.
        overlap: Voxels that neighbours share at least, less than the window; ``stride`` divides it.
        stride: The detector's largest stride.

    Returns:
        The windows, all of one size.

    Raises:
        ValueError: A number is not divisible, or the overlap is not smaller than the window.
    """
    for name, values in (("window", window), ("overlap", overlap), ("size", size)):
        if any(value % stride for value in values):
            raise ValueError(f"{name} is {tuple(values)}; expected multiples of {stride}")
    if any(not 0 <= less < more for less, more in zip(overlap, window, strict=True)):
        raise ValueError(
            f"overlap is {tuple(overlap)} and window {tuple(window)}; expected 0 <= overlap, and "
            "less than the window"
        )
    axes = [_spans(*axis, stride) for axis in zip(size, window, overlap, strict=True)]
    return [Window(*zip(*spans, strict=True)) for spans in itertools.product(*axes)]


def _spans(size: int, window: int, overlap: int, stride: int) -> list[tuple[slice, slice]]:
    if size <= window:
        return [(slice(0, size), slice(0, size))]
    last = size - window
    starts = [*range(0, last, window - overlap), last]
    # Seams lie where the coarsest anchors' cells meet, so that all levels have the same ones.
    seams = [
        (second + first + window) // 2 // stride * stride
        for first, second in itertools.pairwise(starts)
    ]
    return [
        (slice(start, start + window), slice(low - start, high - start))
        for start, low, high in zip(starts, [0, *seams], [*seams, size], strict=True)
    ]
