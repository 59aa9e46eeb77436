"""Where the voxels of a 3D array lie in the patient, through crops and symmetries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .volume import Volume

__all__ = ["Frame"]

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@dataclass(frozen=True)
class Frame:
    """The geometry of an array without the array.

    Points and boxes are continuous, in voxels: voxel ``i`` covers ``[i, i + 1)``, so that its
    centre lies at ``i + 0.5`` (unlike the indices of :class:`~.volume.Volume`).

    Args:
        shape: ``(D, H, W)``.
        spacing: ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` in mm of the centre of voxel 0, 0, 0.
        direction: 3×3 matrix, row by row; its columns are the directions of x, y and z.

    Raises:
        InputError: The geometry is not usable.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY

    def __post_init__(self) -> None:
        for name, kind, length in (
            ("shape", int, 3),
            ("spacing", float, 3),
            ("origin", float, 3),
            ("direction", float, 9),
        ):
            # Frozen, and lists (from JSON) must compare equal to tuples.
            values = tuple(kind(v) for v in getattr(self, name))
            if len(values) != length or not np.isfinite(values).all():
                raise InputError(f"Frame.{name} is {values}; expected {length} finite numbers")
            object.__setattr__(self, name, values)
        if min(self.shape) < 1 or min(self.spacing) <= 0:
            raise InputError(
                f"Frame has the shape {self.shape} and the spacing {self.spacing}; expected "
                "positive numbers"
            )

    @classmethod
    def of(cls, volume: Volume) -> Frame:
        """The frame of a volume, or of anything with its shape, spacing, origin and direction."""
        return cls(volume.shape, volume.spacing, volume.origin, volume.direction)

    @property
    def _matrix(self) -> np.ndarray:
        return np.array(self.direction).reshape(3, 3)

    def points_to_world(self, points: np.ndarray) -> np.ndarray:
        """Points in voxels to world positions.

        Args:
            points: ``(N, 3)`` continuous ``(x, y, z)``.

        Returns:
            ``(N, 3)`` float64 ``(x, y, z)`` in mm.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return ((points - 0.5) * self.spacing) @ self._matrix.T + self.origin

    def points_to_voxels(self, points: np.ndarray) -> np.ndarray:
        """World positions to points in voxels, the inverse of :meth:`points_to_world`."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points - self.origin) @ np.linalg.inv(self._matrix).T / self.spacing + 0.5

    def boxes_around(self, spheres: np.ndarray) -> np.ndarray:
        """Cubes around spheres.

        Args:
            spheres: ``(N, 4)`` world ``(x, y, z, diameter)`` in mm.

        Returns:
            ``(N, 6)`` float64 boxes ``(x1, y1, z1, x2, y2, z2)`` in voxels.
        """
        spheres = np.asarray(spheres, dtype=np.float64).reshape(-1, 4)
        centres = self.points_to_voxels(spheres[:, :3])
        half = spheres[:, 3:] / 2 / self.spacing
        return np.hstack((centres - half, centres + half))

    def box_centres(self, boxes: np.ndarray) -> np.ndarray:
        """World positions ``(N, 3)`` of the centres of ``(N, 6)`` boxes in voxels."""
        boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 6)
        return self.points_to_world((boxes[:, :3] + boxes[:, 3:]) / 2)

    def contains(self, points: np.ndarray) -> np.ndarray:
        """Whether world positions ``(N, 3)`` lie in the array, ``(N,)`` bool."""
        voxels = self.points_to_voxels(points)
        return ((voxels >= 0) & (voxels <= self.shape[::-1])).all(axis=1)

    def crop(self, offset: Sequence[int], shape: Sequence[int]) -> Frame:
        """The frame of a part, which may reach beyond the array.

        Args:
            offset: First voxel ``(x, y, z)`` of the part.
            shape: ``(D, H, W)`` of the part.
        """
        (origin,) = self.points_to_world(np.asarray(offset, dtype=np.float64) + 0.5)
        return Frame(tuple(shape), self.spacing, tuple(origin), self.direction)

    def permute(self, axes: Sequence[int], flips: Sequence[bool]) -> Frame:
        """The frame of the array after its axes are permuted and some of the new ones flipped.

        Args:
            axes: New axis ``k`` of ``(D, H, W)`` is the old axis ``axes[k]``.
            flips: Whether the new axis ``k`` is flipped.
        """
        columns = [2 - axes[2 - k] for k in range(3)]
        signs = np.array([-1.0 if flips[2 - k] else 1.0 for k in range(3)])
        corner = np.array([0.5, 0.5, 0.5])
        for column, sign in zip(columns, signs):
            if sign < 0:
                corner[column] = self.shape[2 - column] - 0.5
        (origin,) = self.points_to_world(corner)
        return Frame(
            tuple(self.shape[axis] for axis in axes),
            tuple(self.spacing[column] for column in columns),
            tuple(origin),
            # Without the zero, flipped zeros would be negative ones.
            tuple((self._matrix[:, columns] * signs + 0.0).ravel()),
        )

    def to_dict(self) -> dict[str, list]:
        """Plain lists, for JSON."""
        return {
            "shape": list(self.shape),
            "spacing": list(self.spacing),
            "origin": list(self.origin),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Frame:
        """The inverse of :meth:`to_dict`.

        Raises:
            KeyError: An entry is missing.
        """
        keys = ("shape", "spacing", "origin", "direction")
        missing = [key for key in keys if key not in values]
        if missing:
            raise KeyError(f"a frame has no {missing[0]!r}; expected the keys {list(keys)}")
        return cls(*(tuple(values[key]) for key in keys))
