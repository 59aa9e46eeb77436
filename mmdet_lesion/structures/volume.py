"""Volumes: arrays with a geometry."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from .geometry import Geometry
from .symmetry import CubeSymmetry
from .triples import triple

if TYPE_CHECKING:
    import SimpleITK as sitk  # noqa: N813

__all__ = ["Volume"]

# Resampling needs float32; slabs of slices keep the peak memory near that of the result.
_SLAB = 32


@dataclass
class Volume:
    """Array with a geometry (:class:`Geometry`).

    Args:
        array: Voxels ``(D, H, W)``, in HU for CT.
        spacing: Spacing ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` of the center of voxel (0, 0, 0) in mm.
        direction: 3×3 matrix in row-major order; its columns are the directions of x, y and z.

    Raises:
        InputError: The array is not three-dimensional, or the geometry is invalid.
    """

    array: np.ndarray
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    direction: tuple[float, ...] = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)

    def __post_init__(self) -> None:
        self.array = np.asarray(self.array)
        if self.array.ndim != 3 or not self.array.size:
            raise InputError(
                f"Volume.array has the shape {self.array.shape}; expected (D, H, W), not empty"
            )
        geometry = self.geometry
        self.spacing, self.origin = geometry.spacing, geometry.origin
        self.direction = geometry.direction

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size ``(D, H, W)``."""
        return self.array.shape

    @property
    def geometry(self) -> Geometry:
        """Size, spacing, origin and direction."""
        return Geometry(self.array.shape, self.spacing, self.origin, self.direction)

    @classmethod
    def with_geometry(cls, array: np.ndarray, geometry: Geometry) -> Volume:
        """Build a volume from an array and its geometry.

        Raises:
            InputError: The shapes of array and geometry differ.
        """
        if array.shape != geometry.shape:
            raise InputError(f"array has the shape {array.shape}; expected {geometry.shape}")
        return cls(array, geometry.spacing, geometry.origin, geometry.direction)

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Build a volume with a copy of the image's voxels.

        Raises:
            InputError: The image is not three-dimensional or has several channels.
        """
        import SimpleITK as sitk  # noqa: N813

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
        """Convert to a SimpleITK image with a copy of the voxels."""
        import SimpleITK as sitk  # noqa: N813

        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def permute(self, symmetry: CubeSymmetry) -> Volume:
        """Permute and flip the axes; the result shares memory with this volume."""
        return Volume.with_geometry(symmetry.apply(self.array), self.geometry.permute(symmetry))

    def resample(self, spacing: Sequence[float]) -> Volume:
        """Resample linearly; the center of the first voxel is kept.

        Beyond the centers of the border voxels, the value of the nearest voxel is used. Integer
        arrays are rounded to the nearest integer.

        Args:
            spacing: New spacing ``(x, y, z)`` in mm.

        Returns:
            A new volume of the size :func:`resampled_shape` and the same dtype.

        Raises:
            InputError: The spacing is not three positive numbers.
        """
        import SimpleITK as sitk  # noqa: N813

        geometry = self.geometry.resample(spacing)
        if geometry.spacing == self.spacing:
            return Volume.with_geometry(self.array.copy(), self.geometry)
        resampler = _resampler(sitk, geometry)
        resampler.SetUseNearestNeighborExtrapolator(True)
        depth, height, width = geometry.shape
        result = np.empty(geometry.shape, dtype=self.array.dtype)
        step = geometry.spacing[2] / self.spacing[2]
        for start in range(0, depth, _SLAB):
            stop = min(start + _SLAB, depth)
            # SimpleITK copies its input, which is therefore limited to the slices of the slab.
            first = min(max(int(start * step) - 1, 0), self.shape[0] - 1)
            last = min(int((stop - 1) * step) + 3, self.shape[0])
            part = self.geometry.crop((0, 0, first), (last - first, *self.shape[1:]))
            image = Volume.with_geometry(self.array[first:last], part).to_sitk()
            corner = (geometry.matrix @ (0.0, 0.0, start * geometry.spacing[2])) + self.origin
            resampler.SetOutputOrigin(corner.tolist())
            resampler.SetSize((width, height, stop - start))
            slab = sitk.GetArrayFromImage(resampler.Execute(image))
            result[start:stop] = np.rint(slab) if np.issubdtype(result.dtype, np.integer) else slab
        return Volume.with_geometry(result, geometry)

    def resample_to_world_axes(self, spacing: Sequence[float], fill: float) -> Volume:
        """Resample linearly to the world axes left, posterior and superior (LPS).

        If the axes of the volume are parallel to those of the world, they are first permuted and
        flipped, which is exact. An oblique volume is resampled to its bounding box.

        Args:
            spacing: New spacing along the world axes ``(x, y, z)`` in mm.
            fill: Value outside an oblique volume.

        Returns:
            A volume of the same dtype whose direction is the identity.
        """
        own = self.geometry
        if own.is_axis_aligned:
            permuted = self.permute(own.symmetry_to_patient())
            array = np.ascontiguousarray(permuted.array)
            return Volume(array, permuted.spacing, permuted.origin).resample(spacing)
        import SimpleITK as sitk  # noqa: N813

        centers = own.corners_to_world([[0.5, 0.5, 0.5, *(own.size - 0.5)]])[0]
        low, high = centers.min(axis=0), centers.max(axis=0)
        steps = triple(spacing, "spacing")
        size = [math.ceil((b - a) / s) + 1 for a, b, s in zip(low, high, steps)]
        geometry = Geometry(triple(size[::-1]), steps, triple(low))
        resampler = _resampler(sitk, geometry)
        resampler.SetDefaultPixelValue(float(fill))
        resampler.SetOutputOrigin(geometry.origin)
        resampler.SetSize(size)
        array = sitk.GetArrayFromImage(resampler.Execute(self.to_sitk()))
        if np.issubdtype(self.array.dtype, np.integer):
            array = np.rint(array)
        return Volume.with_geometry(array.astype(self.array.dtype), geometry)


def _resampler(sitk: ModuleType, geometry: Geometry) -> sitk.ResampleImageFilter:
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetOutputSpacing(geometry.spacing)
    resampler.SetOutputDirection(geometry.direction)
    # ITK truncates when it writes integers, which lowers voxels by half a HU on average.
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return resampler
