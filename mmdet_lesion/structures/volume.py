"""A volume of Hounsfield units and where it lies in the patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ..errors import InputError
from .grid import resampled_shape

__all__ = ["Volume"]

_IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
# Resampling goes through float32; slabs keep the peak memory near that of the result.
_SLAB = 32


def _floats(name: str, values: Sequence[float], length: int) -> tuple[float, ...]:
    values = tuple(float(v) for v in values)
    if len(values) != length or not all(map(math.isfinite, values)):
        raise InputError(f"Volume.{name} is {values}; expected {length} finite numbers")
    return values


@dataclass
class Volume:
    """Voxels on a regular grid, in SimpleITK's and DICOM's geometry (LPS).

    Args:
        array: Voxels ``(D, H, W)``, in HU for CT.
        spacing: ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` in mm of the centre of voxel 0, 0, 0.
        direction: 3×3 matrix, row by row; its columns are the directions of x, y and z.

    Raises:
        InputError: The array is not three-dimensional or the geometry is not usable.
    """

    array: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = _IDENTITY

    def __post_init__(self) -> None:
        self.array = np.asarray(self.array)
        if self.array.ndim != 3 or not self.array.size:
            raise InputError(
                f"Volume.array has the shape {self.array.shape}; expected (D, H, W), not empty"
            )
        self.spacing = _floats("spacing", self.spacing, 3)
        self.origin = _floats("origin", self.origin, 3)
        self.direction = _floats("direction", self.direction, 9)
        if min(self.spacing) <= 0:
            raise InputError(f"Volume.spacing is {self.spacing}; expected positive mm")
        if abs(np.linalg.det(self._matrix)) < 1e-6:
            raise InputError(f"Volume.direction is {self.direction}; expected a rotation")

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(D, H, W)``."""
        return self.array.shape

    @property
    def _matrix(self) -> np.ndarray:
        return np.array(self.direction, dtype=np.float64).reshape(3, 3)

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """A volume with a copy of the image's voxels.

        Raises:
            InputError: The image is not three-dimensional or has several channels.
        """
        if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
            raise InputError(
                f"the image has {image.GetDimension()} dimensions and "
                f"{image.GetNumberOfComponentsPerPixel()} channels; expected 3 and 1"
            )
        return cls(
            sitk.GetArrayFromImage(image),
            image.GetSpacing(),
            image.GetOrigin(),
            image.GetDirection(),
        )

    def to_sitk(self) -> sitk.Image:
        """A SimpleITK image with a copy of the voxels."""
        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def voxel_to_world(self, points: np.ndarray) -> np.ndarray:
        """Continuous voxel indices to world positions.

        Args:
            points: ``(N, 3)`` indices ``(x, y, z)``; whole numbers are voxel centres.

        Returns:
            ``(N, 3)`` float64 ``(x, y, z)`` in mm.
        """
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points * self.spacing) @ self._matrix.T + self.origin

    def world_to_voxel(self, points: np.ndarray) -> np.ndarray:
        """World positions to continuous voxel indices, the inverse of :meth:`voxel_to_world`."""
        points = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return (points - self.origin) @ np.linalg.inv(self._matrix).T / self.spacing

    def _slices(self, start: int, stop: int) -> Volume:
        """The slices ``start`` to ``stop`` where they are."""
        origin = tuple(self.voxel_to_world((0, 0, start))[0])
        return Volume(self.array[start:stop], self.spacing, origin, self.direction)

    def resample(self, spacing: Sequence[float]) -> Volume:
        """Resample linearly; the centre of the first voxel stays where it is.

        Beyond the centres of the border voxels the nearest voxel's value holds. Integer arrays
        are rounded to the nearest integer.

        Args:
            spacing: New spacing ``(x, y, z)`` in mm.

        Returns:
            A new volume of :func:`~mmdet_lesion.structures.grid.resampled_shape`, same dtype.

        Raises:
            InputError: The spacing is not three positive numbers.
        """
        spacing = _floats("spacing", spacing, 3)
        if min(spacing) <= 0:
            raise InputError(f"the new spacing is {spacing}; expected positive mm")
        if spacing == self.spacing:
            return Volume(self.array.copy(), spacing, self.origin, self.direction)
        depth, height, width = resampled_shape(self.shape, self.spacing, spacing)
        resampler = sitk.ResampleImageFilter()
        resampler.SetInterpolator(sitk.sitkLinear)
        resampler.SetUseNearestNeighborExtrapolator(True)
        resampler.SetOutputSpacing(spacing)
        resampler.SetOutputDirection(self.direction)
        # ITK truncates when it writes integers, which would darken every voxel by half a HU.
        resampler.SetOutputPixelType(sitk.sitkFloat32)
        result = np.empty((depth, height, width), dtype=self.array.dtype)
        step = spacing[2] / self.spacing[2]
        for start in range(0, depth, _SLAB):
            stop = min(start + _SLAB, depth)
            # SimpleITK copies what it reads: the slices around the slab, not the volume.
            first = min(max(int(start * step) - 1, 0), self.shape[0] - 1)
            image = self._slices(first, int((stop - 1) * step) + 3).to_sitk()
            corner = (self._matrix @ (0.0, 0.0, start * spacing[2])) + self.origin
            resampler.SetOutputOrigin(corner.tolist())
            resampler.SetSize((width, height, stop - start))
            slab = sitk.GetArrayFromImage(resampler.Execute(image))
            result[start:stop] = np.rint(slab) if np.issubdtype(result.dtype, np.integer) else slab
        return Volume(result, spacing, self.origin, self.direction)
