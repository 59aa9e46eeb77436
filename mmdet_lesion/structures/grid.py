"""Published, array and store coordinates of a resampled volume: the only place that converts them.

The store of DeepLesion is resampled in x and y alone. What loads a whole volume resamples it in z
as well and makes a grid of its own, whose store is the array at hand.

*Published* coordinates (``DL_info.csv``, Lesion Harvester) number pixels from 1 and count both ends
of a box: pixel ``x`` is array column ``x - 1`` and ``[x1, y1, x2, y2]`` covers the array edges
``[x1 - 1, y1 - 1, x2, y2]``. *Edges* are continuous and half-open: column ``i`` covers
``[i, i + 1)``, its centre lies at edge ``i + 0.5``. Published z is the zero-based slice within the
sub-volume. Resampling keeps the centre of the first voxel, as SimpleITK does with an unchanged
origin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["Grid", "resampled_shape"]

# Sizes such as (64 - 1) * 0.8 / 0.8 must not grow by a slice through rounding.
_SIZE_SLACK = 1e-6


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], store_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Size of a volume after resampling: the last voxel's centre is still covered.

    Args:
        shape: Size ``(D, H, W)``.
        spacing: Spacing ``(x, y, z)`` in mm.
        store_spacing: New spacing ``(x, y, z)`` in mm.

    Returns:
        ``ceil((n - 1) * s / s') + 1`` for each of ``(D, H, W)``.
    """
    depth, height, width = (
        math.ceil((n - 1) * old / new - _SIZE_SLACK) + 1
        for n, old, new in zip(shape, spacing[::-1], store_spacing[::-1], strict=True)
    )
    return depth, height, width


def _triple(name: str, values: Sequence[float], kind: type) -> tuple:
    values = tuple(kind(v) for v in values)
    if len(values) != 3 or not all(math.isfinite(v) and v > 0 for v in values):
        raise InputError(f"Grid.{name} is {values}; expected three positive numbers")
    return values


@dataclass(frozen=True)
class Grid:
    """The published grid of a sub-volume and the resampled grid of the store or of an array.

    Args:
        shape: Published size ``(D, H, W)``.
        spacing: Published spacing ``(x, y, z)`` in mm.
        store_shape: Size in the store ``(D, H, W)``.
        store_spacing: Spacing in the store ``(x, y, z)`` in mm.

    Raises:
        InputError: An entry is not three positive finite numbers.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    store_shape: tuple[int, int, int]
    store_spacing: tuple[float, float, float]

    def __post_init__(self) -> None:
        for name, kind in (
            ("shape", int),
            ("spacing", float),
            ("store_shape", int),
            ("store_spacing", float),
        ):
            # Frozen, and lists (from JSON) must compare equal to tuples.
            object.__setattr__(self, name, _triple(name, getattr(self, name), kind))

    @classmethod
    def resampled(
        cls, shape: Sequence[int], spacing: Sequence[float], store_spacing: Sequence[float]
    ) -> Grid:
        """The grid whose store size follows from the two spacings."""
        store_shape = resampled_shape(shape, spacing, store_spacing)
        return cls(tuple(shape), tuple(spacing), store_shape, tuple(store_spacing))

    @classmethod
    def identity(cls, shape: Sequence[int], spacing: Sequence[float]) -> Grid:
        """The grid of a volume that is stored as it was published."""
        return cls(tuple(shape), tuple(spacing), tuple(shape), tuple(spacing))

    @property
    def _box_ratio(self) -> np.ndarray:
        """Store pixels per published pixel, for the columns x, y, x, y."""
        ratio = [self.spacing[i] / self.store_spacing[i] for i in (0, 1, 0, 1)]
        return np.array(ratio, dtype=np.float64)

    def boxes_to_store(self, boxes: np.ndarray) -> np.ndarray:
        """Published boxes to store pixels.

        Args:
            boxes: ``(N, 4)`` published ``[x1, y1, x2, y2]``, 1-based, both ends counted.

        Returns:
            ``(N, 4)`` float64 half-open edges in store pixels.
        """
        edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - (1, 1, 0, 0)
        return (edges - 0.5) * self._box_ratio + 0.5

    def boxes_to_published(self, boxes: np.ndarray) -> np.ndarray:
        """Store boxes to published ones, the inverse of :meth:`boxes_to_store`.

        Args:
            boxes: ``(N, 4)`` half-open edges in store pixels.

        Returns:
            ``(N, 4)`` float64 published ``[x1, y1, x2, y2]``, 1-based, both ends counted.
        """
        edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        return (edges - 0.5) / self._box_ratio + 0.5 + (1, 1, 0, 0)

    def points_to_store(self, points: np.ndarray) -> np.ndarray:
        """Published points (RECIST end points) to store pixels.

        Args:
            points: ``(N, 2)`` published ``[x, y]``; the centre of pixel ``x`` is ``x`` itself.

        Returns:
            ``(N, 2)`` float64 store coordinates in the convention of the boxes' edges (a centre
            lies at ``i + 0.5``).
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        return (points - 1) * self._box_ratio[:2] + 0.5

    def points_to_published(self, points: np.ndarray) -> np.ndarray:
        """Store points to published ones, the inverse of :meth:`points_to_store`."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 2)
        return (points - 0.5) / self._box_ratio[:2] + 1

    def slices_to_store(self, z: np.ndarray | float) -> np.ndarray:
        """Published slice indices (zero-based) to continuous store slice positions."""
        return np.asarray(z, dtype=np.float64) * (self.spacing[2] / self.store_spacing[2])

    def slices_to_published(self, k: np.ndarray | float) -> np.ndarray:
        """Store slice indices to continuous published slice positions (zero-based)."""
        return np.asarray(k, dtype=np.float64) / (self.spacing[2] / self.store_spacing[2])

    def nearest_store_slice(self, z: np.ndarray | float) -> np.ndarray:
        """Store slice next to a published slice; a tie goes to the lower one.

        Returns:
            int64 of the shape of ``z``, within ``0 … store_shape[0] - 1``.
        """
        # The slack keeps a tie such as 2.5000000001 (from rounding of s / s') a tie.
        nearest = np.ceil(self.slices_to_store(z) - 0.5 - _SIZE_SLACK)
        return np.clip(nearest, 0, self.store_shape[0] - 1).astype(np.int64)

    def boxes3d_to_array(self, boxes: np.ndarray) -> np.ndarray:
        """3D boxes in store voxels as boxes in voxels of the array before resampling.

        Args:
            boxes: ``(N, 6)`` half-open edges ``[x1, y1, z1, x2, y2, z2]`` in store voxels.

        Returns:
            ``(N, 6)`` float64 half-open edges, zero-based like those of the store.
        """
        ratio = np.array(self.spacing, dtype=np.float64) / self.store_spacing
        edges = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        return (edges - 0.5) / np.tile(ratio, 2) + 0.5

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for JSON."""
        return {
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "store_shape": list(self.store_shape),
            "store_spacing": list(self.store_spacing),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Grid:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: An entry is missing.
        """
        keys = ("shape", "spacing", "store_shape", "store_spacing")
        missing = [key for key in keys if key not in values]
        if missing:
            raise KeyError(f"a grid has no {missing[0]!r}; expected the keys {list(keys)}")
        return cls(*(tuple(values[key]) for key in keys))
