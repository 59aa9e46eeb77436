"""Volumes of any direction onto a grid whose axes are those of the world."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .orientation import Orientation
from .volume import Volume

__all__ = ["is_axis_aligned", "to_axis_aligned"]

# A tilt that moves nothing within 500 mm by more than a twentieth of a millimetre is rounding.
_TILT = 1e-4


def is_axis_aligned(volume: Volume) -> bool:
    """Whether a volume's axes are those of the world, in any order and sense."""
    turned = Orientation.of(volume).apply(volume)
    return bool(np.abs(np.reshape(turned.direction, (3, 3)) - np.eye(3)).max() <= _TILT)


def to_axis_aligned(volume: Volume, spacing: Sequence[float], fill: float) -> Volume:
    """Resample linearly onto axes that run to the left, to the back and up (LPS).

    Where the volume's axes are those of the world in another order or sense, voxels are first put
    in the right order, which is exact. An oblique volume is interpolated onto a grid that holds
    all of it.

    Args:
        volume: The volume.
        spacing: New spacing along the world's axes ``(x, y, z)`` in mm.
        fill: Value outside of an oblique volume.

    Returns:
        A volume of the same dtype whose direction is the identity.
    """
    if not is_axis_aligned(volume):
        return _resample_oblique(volume, spacing, fill)
    turned = Orientation.of(volume).apply(volume)
    array = np.ascontiguousarray(turned.array)
    return Volume(array, turned.spacing, turned.origin).resample(spacing)


def _resample_oblique(volume: Volume, spacing: Sequence[float], fill: float) -> Volume:
    depth, height, width = volume.shape
    ends = np.array(np.meshgrid((0, width - 1), (0, height - 1), (0, depth - 1))).reshape(3, 8).T
    corners = volume.voxel_to_world(ends)
    low, high = corners.min(axis=0), corners.max(axis=0)
    size = [math.ceil((b - a) / s) + 1 for a, b, s in zip(low, high, spacing)]
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkLinear)
    resampler.SetDefaultPixelValue(float(fill))
    resampler.SetOutputPixelType(sitk.sitkFloat32)
    resampler.SetOutputSpacing([float(s) for s in spacing])
    resampler.SetOutputOrigin(low.tolist())
    resampler.SetSize(size)
    array = sitk.GetArrayFromImage(resampler.Execute(volume.to_sitk()))
    if np.issubdtype(volume.array.dtype, np.integer):
        array = np.rint(array)
    return Volume(array.astype(volume.array.dtype), tuple(spacing), tuple(low))
