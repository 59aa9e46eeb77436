"""Geometry of sampled volumes: size, spacing, origin and direction, as in SimpleITK and DICOM.

Voxel coordinates are continuous and half-open: voxel ``i`` covers ``[i, i + 1)`` and its center
lies at ``i + 0.5``. Points, spacing and world positions are ``(x, y, z)``, world positions in mm
(LPS); shapes are ``(D, H, W)``.

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
# Sizes such as (64 - 1) * 0.8 / 0.8 must not grow by a slice through rounding.
_SIZE_SLACK = 1e-6
# A tilt that moves nothing within 500 mm by more than a twentieth of a millimeter is rounding.
_TILT = 1e-4
_KEYS = {"shape": (int, 3), "spacing": (float, 3), "origin": (float, 3), "direction": (float, 9)}


def published_to_voxels(boxes: ArrayLike) -> np.ndarray:
    """Convert 1-based inclusive pixel boxes to half-open voxel coordinates.

    Published *points* (RECIST end points) are centers of pixels: point ``x`` is voxel coordinate
    ``x - 0.5``.

    Args:
        boxes: ``(N, 4)`` published ``[x1, y1, x2, y2]``.

    Returns:
        ``(N, 4)`` float64.
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) - (1, 1, 0, 0)


def voxels_to_published(boxes: ArrayLike) -> np.ndarray:
    """Convert half-open voxel coordinates to 1-based inclusive pixel boxes.

    The inverse of :func:`published_to_voxels`.
    """
    return np.asarray(boxes, dtype=np.float64).reshape(-1, 4) + (1, 1, 0, 0)


def resampled_shape(
    shape: Sequence[int], spacing: Sequence[float], new_spacing: Sequence[float]
) -> tuple[int, int, int]:
    """Compute the size of a volume after resampling that still covers the last voxel's center.

    Args:
        shape: Size ``(D, H, W)``.
        spacing: Spacing ``(x, y, z)`` in mm.
        new_spacing: New spacing ``(x, y, z)`` in mm.

    Returns:
        ``ceil((n - 1) * s / s') + 1`` for each of ``(D, H, W)``.
    """
    return triple(
        math.ceil((n - 1) * old / new - _SIZE_SLACK) + 1
        for n, old, new in zip(shape, spacing[::-1], new_spacing[::-1], strict=True)
    )


@dataclass(frozen=True)
class Geometry:
    """Size, spacing, origin and direction of a sampled volume.

    Args:
        shape: ``(D, H, W)``.
        spacing: ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` in mm of the center of voxel 0, 0, 0.
        direction: 3×3 matrix, row by row; its columns are the directions of x, y and z.

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
            # Lists, as JSON has them, must compare equal to tuples.
            object.__setattr__(self, name, tuple(kind(value) for value in given))
        for name in ("shape", "spacing"):
            if min(getattr(self, name)) <= 0:
                raise InputError(f"{name} is {getattr(self, name)}; expected positive numbers")
        if abs(np.linalg.det(self.matrix)) < 1e-6:
            raise InputError(f"direction is {self.direction}; expected a rotation")

    @property
    def matrix(self) -> np.ndarray:
        """``(3, 3)`` float64 direction matrix."""
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def size(self) -> np.ndarray:
        """``(3,)`` number of voxels along ``(x, y, z)``, the order of boxes and points."""
        return np.array(self.shape[::-1])

    # World

    def points_to_world(self, points: ArrayLike) -> np.ndarray:
        """Convert voxel coordinates to world positions.

        Args:
            points: ``(N, 3)`` continuous ``(x, y, z)``; centers lie at ``i + 0.5``.

        Returns:
            ``(N, 3)`` float64 in mm.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return ((points - 0.5) * self.spacing) @ self.matrix.T + self.origin

    def points_to_voxels(self, points: ArrayLike) -> np.ndarray:
        """Convert world positions to voxel coordinates.

        The inverse of :meth:`points_to_world`.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points - self.origin) @ np.linalg.inv(self.matrix).T / self.spacing + 0.5

    def centers_to_world(self, boxes: ArrayLike) -> np.ndarray:
        """World positions ``(N, 3)`` of the centers of ``(N, 6)`` boxes in voxels."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        return self.points_to_world((boxes[:, :3] + boxes[:, 3:]) / 2)

    def corners_to_world(self, boxes: ArrayLike) -> np.ndarray:
        """World positions ``(N, 8, 3)`` of the corners of ``(N, 6)`` boxes in voxels."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        upper = np.array(np.meshgrid(*[[False, True]] * 3, indexing="ij")).reshape(3, 8).T
        points = np.where(upper, boxes[:, None, 3:], boxes[:, None, :3])
        return self.points_to_world(points).reshape(-1, 8, 3)

    def boxes_around_spheres(self, spheres: ArrayLike) -> np.ndarray:
        """Compute the smallest boxes around spheres, aligned with the volume's axes.

        Args:
            spheres: ``(N, 4)`` world ``(x, y, z, diameter)`` in mm.

        Returns:
            ``(N, 6)`` float64 ``(x1, y1, z1, x2, y2, z2)`` in voxels.
        """
        spheres = np.asarray(spheres, dtype=np.float64).reshape(-1, 4)
        centers = self.points_to_voxels(spheres[:, :3])
        half = spheres[:, 3:] / 2 / self.spacing
        return np.hstack((centers - half, centers + half))

    def contains(self, points: ArrayLike) -> np.ndarray:
        """Whether world positions ``(N, 3)`` lie in the volume, ``(N,)`` bool."""
        voxels = self.points_to_voxels(points)
        return np.all((voxels >= 0) & (voxels <= self.size), axis=1)

    # Other samplings of the same space

    def resample(self, spacing: Sequence[float]) -> Geometry:
        """Geometry after resampling; the center of the first voxel stays where it is.

        Args:
            spacing: New spacing ``(x, y, z)`` in mm.
        """
        spacing = tuple(map(float, spacing))
        if len(spacing) != 3 or not all(0 < value < math.inf for value in spacing):
            raise InputError(f"spacing is {spacing}; expected three positive numbers")
        shape = resampled_shape(self.shape, self.spacing, spacing)
        return Geometry(shape, spacing, self.origin, self.direction)

    def points_to(self, other: Geometry, points: ArrayLike) -> np.ndarray:
        """Convert points to the voxels of a resampled geometry.

        Args:
            other: A geometry that differs in spacing and size alone.
            points: ``(N, 2)`` points in x and y, or ``(N, 3)``.

        Returns:
            Float64 points of the same shape.
        """
        points = np.asarray(points, dtype=np.float64)
        axes = points.shape[-1]
        ratio = np.array(self.spacing[:axes], dtype=np.float64) / other.spacing[:axes]
        return (points - 0.5) * ratio + 0.5

    def boxes_to(self, other: Geometry, boxes: ArrayLike) -> np.ndarray:
        """Convert boxes to the voxels of a resampled geometry.

        Args:
            other: A geometry that differs in spacing and size alone.
            boxes: ``(N, 4)`` boxes in x and y, or ``(N, 6)``.

        Returns:
            Float64 boxes of the same shape.
        """
        boxes = np.asarray(boxes, dtype=np.float64)
        return self.points_to(other, boxes.reshape(-1, 2, boxes.shape[-1] // 2)).reshape(
            boxes.shape
        )

    def slices_to(self, other: Geometry, indices: ArrayLike) -> np.ndarray:
        """Convert slice indices to continuous slice indices of a resampled geometry.

        Args:
            other: A geometry that differs in spacing and size alone.
            indices: Zero-based; whole numbers are the centers of slices.
        """
        indices = np.asarray(indices, dtype=np.float64)
        return indices * (self.spacing[2] / other.spacing[2])

    def nearest_slice(self, other: Geometry, indices: ArrayLike) -> np.ndarray:
        """Find the slice of a resampled geometry that is nearest to each slice; ties go down.

        Returns:
            int64 of the shape of ``indices``, within ``0 … other.shape[0] - 1``.
        """
        # The slack keeps a tie such as 2.5000000001 (from rounding of s / s') a tie.
        nearest = np.ceil(self.slices_to(other, indices) - 0.5 - _SIZE_SLACK)
        return np.clip(nearest, 0, other.shape[0] - 1).astype(np.int64)

    # Other arrays over the same samples

    def crop(self, offset: Sequence[int], shape: Sequence[int]) -> Geometry:
        """Geometry of a part, which may reach beyond the volume.

        Args:
            offset: First voxel ``(x, y, z)`` of the part.
            shape: ``(D, H, W)`` of the part.
        """
        (origin,) = self.points_to_world(np.asarray(offset, dtype=np.float64) + 0.5)
        return Geometry(triple(shape, "shape"), self.spacing, triple(origin), self.direction)

    def permute(self, symmetry: CubeSymmetry) -> Geometry:
        """Geometry of the array after permuting its axes and flipping some of the new ones."""
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
            # Without the zero, flipped zeros would be negative ones.
            tuple((self.matrix[:, columns] * signs + 0.0).ravel()),
        )

    def symmetry_to_patient(self) -> CubeSymmetry:
        """Find the symmetry that brings the axes closest to left, posterior and superior.

        Whole axes change places or direction, so that every voxel keeps its value; a remaining
        rotation (an oblique scan, a tilted gantry) stays in the direction matrix.
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
        """Whether the axes are those of the world, in any order and sense."""
        permuted = self.permute(self.symmetry_to_patient())
        return bool(np.abs(permuted.matrix - np.eye(3)).max() <= _TILT)

    # JSON

    def to_dict(self) -> dict[str, list]:
        """Convert to plain lists, for JSON."""
        return {name: list(getattr(self, name)) for name in _KEYS}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Geometry:
        """Build from the result of :meth:`to_dict`.

        Raises:
            InputError: A key is missing or a value is invalid.
        """
        missing = [key for key in _KEYS if key not in values]
        if missing:
            raise InputError(f"geometry has no {missing[0]!r}; expected the keys {list(_KEYS)}")
        return cls(*(tuple(values[key]) for key in _KEYS))
