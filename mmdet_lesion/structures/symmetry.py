"""The 48 symmetries of the cube, applied to volumes, boxes and points."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from .triples import triple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CUBE_SYMMETRIES", "CubeSymmetry"]

Array = TypeVar("Array", np.ndarray, "Tensor")


@dataclass(frozen=True)
class CubeSymmetry:
    """Symmetry of the cube: a permutation of the axes, followed by flips of the new axes.

    It can be applied to NumPy arrays and tensors.

    Args:
        axes: New axis ``k`` of ``(D, H, W)`` is the old axis ``axes[k]``.
        flips: Whether the new axis ``k`` is flipped.

    Raises:
        ValueError: ``axes`` is not a permutation of 0, 1, 2, or ``flips`` not three values.
    """

    axes: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def __post_init__(self) -> None:
        if sorted(self.axes) != [0, 1, 2] or len(self.flips) != 3:
            raise ValueError(
                f"{self} is no symmetry; expected a permutation of 0, 1, 2 and three flips"
            )

    def __matmul__(self, first: CubeSymmetry) -> CubeSymmetry:
        """Return the symmetry that applies ``first`` and then ``self``."""
        axes = triple(first.axes[axis] for axis in self.axes)
        flips = triple(
            own != first.flips[axis] for own, axis in zip(self.flips, self.axes, strict=True)
        )
        return CubeSymmetry(axes, flips)

    @property
    def inverse(self) -> CubeSymmetry:
        """The inverse symmetry."""
        back = triple(self.axes.index(axis) for axis in range(3))
        return CubeSymmetry(back, triple(self.flips[axis] for axis in back))

    def size(self, size: Sequence[int]) -> tuple[int, int, int]:
        """Return the size ``(D, H, W)`` of the transformed volume."""
        return triple(int(size[axis]) for axis in self.axes)

    def apply(self, volume: Array) -> Array:
        """Transform the last three axes of an array.

        Args:
            volume: Array or tensor, shape (..., D, H, W).

        Returns:
            The transformed array, which may share memory with ``volume``.
        """
        lead: int = volume.ndim - 3
        order = (*range(lead), *(lead + axis for axis in self.axes))
        flipped = [lead + axis for axis in range(3) if self.flips[axis]]
        if isinstance(volume, np.ndarray):
            return np.flip(volume.transpose(order), flipped)
        moved = volume.permute(order)
        return moved.flip(flipped) if flipped else moved

    def apply_boxes(self, boxes: Array, size: Sequence[int]) -> Array:
        """Transform boxes together with their volume.

        Args:
            boxes: Boxes in voxels, shape (N, 6).
            size: Size ``(D, H, W)`` of the volume before the transform.

        Returns:
            Boxes in the transformed volume, shape (N, 6).
        """
        corners = self.apply_points(boxes.reshape(-1, 2, 3), size)
        for column, flip in enumerate(self.flips[::-1]):
            if flip:
                # A flip exchanges the lower and the upper end.
                corners[:, [0, 1], column] = corners[:, [1, 0], column]
        return corners.reshape(-1, 6)

    def apply_points(self, points: Array, size: Sequence[int]) -> Array:
        """Transform points together with their volume.

        Args:
            points: Points ``(x, y, z)`` in voxels; centers are at ``i + 0.5``, shape (..., 3).
            size: Size ``(D, H, W)`` of the volume before the transform.

        Returns:
            Points in the transformed volume, shape (..., 3).
        """
        # Points are (x, y, z), the axes of the volume (z, y, x). Indexing copies.
        points = points[..., [2 - axis for axis in self.axes[::-1]]]
        for column, flip in enumerate(self.flips[::-1]):
            if flip:
                points[..., column] = size[self.axes[2 - column]] - points[..., column]
        return points

    def source_index(self, axis: int, index: Array | int, size: Sequence[int]) -> Array | int:
        """Return the index before the transform of an index along a new axis.

        Args:
            axis: New axis of ``(D, H, W)``.
            index: Zero-based index along this axis.
            size: Size ``(D, H, W)`` of the volume before the transform.
        """
        return size[self.axes[axis]] - 1 - index if self.flips[axis] else index


CUBE_SYMMETRIES: tuple[CubeSymmetry, ...] = tuple(
    CubeSymmetry(triple(axes), triple(flips))
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((False, True), repeat=3)
)
"""All 48 symmetries of the cube; the first one is the identity."""
