"""Volumes: voxels with their geometry."""

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

# Resampling goes through float32; slabs keep the peak memory near that of the result.
_SLAB = 32


@dataclass
class Volume:
    """Voxels and their geometry (:class:`Geometry`).

    Args:
        array: Voxels ``(D, H, W)``, in HU for CT.
        spacing: ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` in mm of the center of voxel 0, 0, 0.
        direction: 3×3 matrix, row by row; its columns are the directions of x, y and z.

    Raises:
        InputError: The array is not three-dimensional or the geometry is not usable.
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
        """``(D, H, W)``."""
        return self.array.shape

    @property
    def geometry(self) -> Geometry:
        """Size, spacing, origin and direction."""
        return Geometry(self.array.shape, self.spacing, self.origin, self.direction)

    @classmethod
    def with_geometry(cls, array: np.ndarray, geometry: Geometry) -> Volume:
        """Volume of an array that has this geometry.

        Raises:
            InputError: The array has another shape.
        """
        if array.shape != geometry.shape:
            raise InputError(f"array has the shape {array.shape}; expected {geometry.shape}")
        return cls(array, geometry.spacing, geometry.origin, geometry.direction)

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Volume with a copy of the image's voxels.

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
        """A SimpleITK image with a copy of the voxels."""
        import SimpleITK as sitk  # noqa: N813

        image = sitk.GetImageFromArray(self.array)
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def permute(self, symmetry: CubeSymmetry) -> Volume:
        """Permute and flip the axes; the voxels are a view of the given ones."""
        return Volume.with_geometry(symmetry.apply(self.array), self.geometry.permute(symmetry))

    def resample(self, spacing: Sequence[float]) -> Volume:
        """Resample linearly; the center of the first voxel stays where it is.

        Beyond the centers of the border voxels the nearest voxel's value holds. Integer arrays
        are rounded to the nearest integer.

        Args:
            spacing: New spacing ``(x, y, z)`` in mm.

        Returns:
            A new volume of :func:`resampled_shape`, same dtype.

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
            # SimpleITK copies what it reads: the slices around the slab, not the volume.
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
        """Resample linearly onto axes that run to the left, to the back and up (LPS).

        Where the volume's axes are those of the world in another order or sense, voxels are first
        put in the right order, which is exact. An oblique volume is interpolated onto a box that
        holds all of it.

        Args:
            spacing: New spacing along the world's axes ``(x, y, z)`` in mm.
            fill: Value outside of an oblique volume.

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
    # ITK truncates when it writes integers, which would darken every voxel by half a HU.
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    return resampler
