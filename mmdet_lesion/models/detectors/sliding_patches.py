"""Overlapping patches that cover a volume."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import InputError

__all__ = ["PatchPlace", "merged_patch_size", "sliding_patches"]


@dataclass(frozen=True)
class PatchPlace:
    """Place of a patch in a volume.

    Args:
        place: Slices ``(z, y, x)`` of the volume that the patch covers.
        core: Slices ``(z, y, x)`` of the patch whose anchors are used. The cores of all patches
            tile the volume.
    """

    place: tuple[slice, slice, slice]
    core: tuple[slice, slice, slice]


def sliding_patches(
    size: Sequence[int], patch_size: Sequence[int], patch_overlap: Sequence[int], stride: int
) -> list[PatchPlace]:
    """Cover a volume with overlapping patches.

    The cores of neighboring patches meet in the middle of their overlap, so that no anchor is
    used closer than about half the overlap to a border of its patch, except at the border of the
    volume. Along an axis shorter than the patch there is one patch of the length of the axis.

    Args:
        size: Size ``(D, H, W)`` of the volume; multiples of ``stride``.
        patch_size: Size ``(D, H, W)`` of a patch; multiples of ``stride``.
        patch_overlap: Smallest overlap of neighboring patches in voxels, smaller than
            ``patch_size``; multiples of ``stride``.
        stride: Largest stride of the detector.

    Returns:
        The places of the patches, which all have the same size.

    Raises:
        InputError: A number is not a multiple of ``stride``, or the overlap is not smaller than
            the patch.
    """
    named = dict(patch_size=patch_size, patch_overlap=patch_overlap, size=size)
    for name, values in named.items():
        if any(value % stride for value in values):
            raise InputError(f"{name} is {tuple(values)}; expected multiples of {stride}")
    if any(not 0 <= less < more for less, more in zip(patch_overlap, patch_size, strict=True)):
        raise InputError(
            f"patch_overlap is {tuple(patch_overlap)} and patch_size {tuple(patch_size)}; expected "
            "0 <= patch_overlap < patch_size"
        )
    axes = [_spans(*axis, stride) for axis in zip(size, patch_size, patch_overlap, strict=True)]
    return [PatchPlace(*zip(*spans, strict=True)) for spans in itertools.product(*axes)]


def merged_patch_size(
    size: Sequence[int],
    patch_size: Sequence[int],
    patch_overlap: Sequence[int],
    stride: int,
    voxels: int,
) -> tuple[int, int, int]:
    """Find the size of the patches that cover a volume with the least computation.

    Larger patches overlap less: a volume of 288 x 400 x 400 voxels takes 48 patches of 160 voxels
    that overlap by 64, 4.3 times its voxels.

    Args:
        size: As for :func:`sliding_patches`.
        patch_size: Smallest size of a patch; an axis shorter than it is one patch.
        patch_overlap: As for :func:`sliding_patches`.
        stride: As for :func:`sliding_patches`.
        voxels: Largest number of voxels of a patch.

    Returns:
        Size ``(D, H, W)``, ``patch_size`` if there is none with fewer computed voxels.
    """
    options = []
    for length, smallest, overlap in zip(size, patch_size, patch_overlap, strict=True):
        axis = [(length, 1)]
        for count in range(2, length // stride + 1):
            edge = math.ceil((length + (count - 1) * overlap) / count / stride) * stride
            if edge < smallest:
                break
            axis.append((edge, count))
        options.append(axis)
    candidates = [
        (math.prod(edge * count for edge, count in axes), tuple(edge for edge, _ in axes))
        for axes in itertools.product(*options)
    ]
    fitting = [found for found in candidates if math.prod(found[1]) <= voxels]
    # An edge of a patch may exceed the volume, but is not below that of the config.
    depth, height, width = map(max, min(fitting)[1], patch_size) if fitting else patch_size
    return depth, height, width


def _spans(size: int, patch_size: int, overlap: int, stride: int) -> list[tuple[slice, slice]]:
    if size <= patch_size:
        return [(slice(0, size), slice(0, size))]
    last = size - patch_size
    starts = [*range(0, last, patch_size - overlap), last]
    # Cores meet at multiples of the largest stride, where anchors of no level are cut.
    seams = [
        (second + first + patch_size) // 2 // stride * stride
        for first, second in itertools.pairwise(starts)
    ]
    return [
        (slice(start, start + patch_size), slice(low - start, high - start))
        for start, low, high in zip(starts, [0, *seams], [*seams, size], strict=True)
    ]
