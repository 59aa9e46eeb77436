"""Geometry of volumes: size, spacing, origin and direction, as in SimpleITK and DICOM.

Voxel coordinates are continuous and half-open: voxel ``i`` covers ``[i, i + 1)`` and its center is
at ``i + 0.5``. Points, spacing and world positions are ``(x, y, z)``, world positions in mm (LPS);
shapes are ``(D, H, W)``.

*Published* coordinates of DeepLesion (``DL_info.csv``, Lesion Harvester) are 1-based pixels with
inclusive ends: pixel ``x`` is array column ``x - 1``, and ``[x1, y1, x2, y2]`` covers the columns
``[x1 - 1, x2)``. :func:`published_to_voxels` and :func:`voxels_to_published` convert them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from .symmetry import CubeSymmetry
from .triples import triple

__all__ = [
    "Geometry",
    "published_to_voxels",
    "resampled_shape",
    "voxels_to_published",
]

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# Rounding errors of sizes such as (64 - 1) * 0.8 / 0.8 must not add a slice.
_SIZE_SLACK = 1e-6
# Tilts that move no point within 500 mm by more than 0.05 mm are rounding errors.
_TILT = 1e-4
_KEYS = {"shape": (int, 3), "spacing": (float, 3), "origin": (float, 3), "direction": (float, 9)}


def published_to_voxels(boxes: ArrayLike) -> np.ndarray:
    """Convert 1-based inclusive pixel boxes to half-open voxel coordinates.

    Published *points* (RECIST end points) are pixel centers: point ``x`` is voxel coordinate
    ``x - 0.5``.

    Args:
        boxes: Published boxes ``[x1, y1, x2, y2]``, shape (N, 4).

    Returns:
        Boxes in voxels, shape (N, 4), float64.
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - (1, 1, 0, 0)


def voxels_to_published(boxes: ArrayLike) -> np.ndarray:
    """Convert half-open voxel coordinates to 1-based inclusive pixel boxes.

    This is the inverse of :func:`published_to_voxels`.
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) + (1, 1, 0, 0)


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Compute the size of a resampled volume that includes the center of the last voxel.

    Args:
        shape: Size ``(D, H, W)``.
        spacing: Spacing ``(x, y, z)`` in mm.
        new_spacing: New spacing ``(x, y, z)`` in mm.

    Returns:
        New size ``(D, H, W)``, each ``ceil((n - 1) * s / s') + 1``.
    """
    return triple(
        math.ceil((n - 1) * old / new - _SIZE_SLACK) + 1
        for n, old, new in zip(shape, spacing[::-1], new_spacing[::-1], strict=True)
    )


@dataclass(frozen=True)
class Geometry:
    """Size, spacing, origin and direction of a volume.

    Args:
        shape: Size ``(D, H, W)``.
        spacing: Spacing ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` of the center of voxel (0, 0, 0) in mm.
        direction: 3×3 matrix in row-major order; its columns are the directions of x, y and z.

    Raises:
        InputError: A value is not finite, a size or spacing is not positive, or the direction is
            singular.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY

    def __post_init__(self) -> None:
        for name, (kind, length) in _KEYS.items():
            given = tuple(getattr(self, name))
            if len(given) != length or not all(math.isfinite(value) for value in given):
                raise InputError(f"{name} is {given}; expected {length} finite numbers")
            # Lists from JSON must equal tuples.
            object.__setattr__(self, name, tuple(kind(value) for value in given))
        for name in ("shape", "spacing"):
            if min(getattr(self, name)) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected positive numbers")
        if abs(np.linalg.det(self.matrix)) < 1e-6:
            raise InputError(f"direction is {self.direction}; expected a rotation")

    @property
    def matrix(self) -> np.ndarray:
        """Direction matrix, shape (3, 3), float64."""
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def size(self) -> np.ndarray:
        """Number of voxels along ``(x, y, z)``, the order of boxes and points, shape (3,)."""
        return np.array(self.shape[::-1])

    def points_to_world(self, points: ArrayLike) -> np.ndarray:
        """Convert voxel coordinates to world positions.

        Args:
            points: Continuous ``(x, y, z)``; voxel centers are at ``i + 0.5``, shape (N, 3).

        Returns:
            World positions in mm, shape (N, 3), float64.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return ((points - 0.5) * self.spacing) @ self.matrix.T + self.origin

    def points_to_voxels(self, points: ArrayLike) -> np.ndarray:
        """Convert world positions to voxel coordinates.

        This is the inverse of :meth:`points_to_world`.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points - self.origin) @ np.linalg.inv(self.matrix).T / self.spacing + 0.5

    def centers_to_world(self, boxes: ArrayLike) -> np.ndarray:
        """Return the world positions (N, 3) of the centers of boxes (N, 6) in voxels."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        return self.points_to_world((boxes[:, :3] + boxes[:, 3:]) / 2)

    def corners_to_world(self, boxes: ArrayLike) -> np.ndarray:
        """Return the world positions (N, 8, 3) of the corners of boxes (N, 6) in voxels."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        upper = np.array(np.meshgrid(*[[False, True]] * 3, indexing="ij")).reshape(3, 8).T
        points = np.where(upper, boxes[:, None, 3:], boxes[:, None, :3])
        return self.points_to_world(points).reshape(-1, 8, 3)

    def boxes_around_spheres(self, spheres: ArrayLike) -> np.ndarray:
        """Compute the smallest boxes around spheres, aligned with the volume's axes.

        Args:
            spheres: World positions and diameters ``(x, y, z, diameter)`` in mm, shape (N, 4).

        Returns:
            Boxes ``(x1, y1, z1, x2, y2, z2)`` in voxels, shape (N, 6), float64.
        """
        spheres = np.asarray(spheres, dtype=np.float64).reshape(-1, 4)
        centers = self.points_to_voxels(spheres[:, :3])
        half = spheres[:, 3:] / 2 / self.spacing
        return np.hstack((centers - half, centers + half))

    def contains(self, points: ArrayLike) -> np.ndarray:
        """Return whether each world position (N, 3) is in the volume, shape (N,), bool."""
        voxels = self.points_to_voxels(points)
        return np.all((voxels >= 0) & (voxels <= self.size), axis=1)

    def resample(self, spacing: Sequence[float]) -> Geometry:
        """Return the geometry of the resampled volume; the center of the first voxel is kept.

        Args:
            spacing: New spacing ``(x, y, z)`` in mm.

        Raises:
            InputError: The spacing is not three positive numbers.
        """
        spacing = tuple(map(float, spacing))
        if len(spacing) != 3 or not all(0 < value < math.inf for value in spacing):
            raise InputError(f"spacing is {spacing}; expected three positive numbers")
        shape = resampled_shape(self.shape, self.spacing, spacing)
        return Geometry(shape, spacing, self.origin, self.direction)

    def points_to(self, other: Geometry, points: ArrayLike) -> np.ndarray:
        """Convert points to the voxels of a resampled geometry.

        Args:
            other: A geometry that differs only in spacing and size.
            points: Points ``(x, y)``, shape (N, 2), or ``(x, y, z)``, shape (N, 3).

        Returns:
            Points of the same shape, float64.
        """
        points = np.asarray(points, dtype=np.float64)
        axes = points.shape[-1]
        ratio = np.array(self.spacing[:axes], dtype=np.float64) / other.spacing[:axes]
        return (points - 0.5) * ratio + 0.5

    def boxes_to(self, other: Geometry, boxes: ArrayLike) -> np.ndarray:
        """Convert boxes to the voxels of a resampled geometry.

        Args:
            other: A geometry that differs only in spacing and size.
            boxes: Boxes in x and y, shape (N, 4), or in x, y and z, shape (N, 6).

        Returns:
            Boxes of the same shape, float64.
        """
        boxes = np.asarray(boxes, dtype=np.float64)
        return self.points_to(other, boxes.reshape(-1, 2, boxes.shape[-1] // 2)).reshape(
            boxes.shape
        )

    def slices_to(self, other: Geometry, indices: ArrayLike) -> np.ndarray:
        """Convert slice indices to continuous slice indices of a resampled geometry.

        Args:
            other: A geometry that differs only in spacing and size.
            indices: Zero-based slice indices; whole numbers are the centers of slices.
        """
        indices = np.asarray(indices, dtype=np.float64)
        return indices * (self.spacing[2] / other.spacing[2])

    def nearest_slice(self, other: Geometry, indices: ArrayLike) -> np.ndarray:
        """Find the nearest slice of a resampled geometry, the lower one of two.

        Args:
            other: A geometry that differs only in spacing and size.
            indices: Zero-based slice indices.

        Returns:
            Indices from 0 to ``other.shape[0] - 1`` of the same shape, int64.
        """
        # Rounding errors of s / s' must not break ties, as 2.5000000001 would.
        nearest = np.ceil(self.slices_to(other, indices) - 0.5 - _SIZE_SLACK)
        return np.clip(nearest, 0, other.shape[0] - 1).astype(np.int64)

    def crop(self, offset: Sequence[int], shape: Sequence[int]) -> Geometry:
        """Return the geometry of a crop, which may exceed the volume.

        Args:
            offset: First voxel ``(x, y, z)`` of the crop.
            shape: Size ``(D, H, W)`` of the crop.
        """
        (origin,) = self.points_to_world(np.asarray(offset, dtype=np.float64) + 0.5)
        return Geometry(triple(shape, "shape"), self.spacing, triple(origin), self.direction)

    def permute(self, symmetry: CubeSymmetry) -> Geometry:
        """Return the geometry of the volume after a symmetry is applied to it."""
        columns = [2 - symmetry.axes[2 - k] for k in range(3)]
        signs = np.where(symmetry.flips[::-1], -1.0, 1.0)
        corner = np.array([0.5, 0.5, 0.5])
        for column, sign in zip(columns, signs):
            if sign < 0:
                corner[column] = self.shape[2 - column] - 0.5
        (origin,) = self.points_to_world(corner)
        return Geometry(
            symmetry.size(self.shape),
            triple(self.spacing[column] for column in columns),
            triple(origin),
            # Adding 0 turns -0.0 into 0.0.
            tuple((self.matrix[:, columns] * signs + 0.0).ravel()),
        )

    def symmetry_to_patient(self) -> CubeSymmetry:
        """Find the symmetry that brings the axes closest to left, posterior and superior.

        Axes are only permuted and flipped, so that voxel values do not change. A remaining
        rotation (an oblique scan, a tilted gantry) is kept in the direction matrix.
        """
        matrix = self.matrix
        # The array axis that runs along each patient axis (x, y, z).
        columns = max(
            itertools.permutations(range(3)),
            key=lambda order: sum(abs(matrix[axis, order[axis]]) for axis in range(3)),
        )
        flips = [bool(matrix[axis, columns[axis]] < 0) for axis in range(3)]
        return CubeSymmetry(triple(2 - column for column in columns[::-1]), triple(flips[::-1]))

    @property
    def is_axis_aligned(self) -> bool:
        """Whether the axes are parallel to those of the world."""
        permuted = self.permute(self.symmetry_to_patient())
        return bool(np.abs(permuted.matrix - np.eye(3)).max() <= _TILT)

    def to_dict(self) -> dict[str, list]:
        """Convert to a dict of lists, for JSON."""
        return {name: list(getattr(self, name)) for name in _KEYS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """Build a geometry from the result of :meth:`to_dict`.

        Raises:
            InputError: A key is missing or a value is invalid.
        """
        missing = [key for key in _KEYS if key not in values]
        if missing:
            raise InputError(f"geometry has no {missing[0]!r}; expected the keys {list(_KEYS)}")
        return cls(*(tuple(values[key]) for key in _KEYS))
