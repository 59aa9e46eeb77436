"""Volumes of any direction onto a grid whose axes are those of the world."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import SimpleITK as sitk  # noqa: N813

from .volume import Volume

__all__ = ["axes_of_world", "to_axis_aligned"]

# A tilt that moves nothing within 500 mm by more than a twentieth of a millimetre is rounding.
_TILT = 1e-4


def axes_of_world(volume: Volume) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]] | None:
    """Which axis of a volume runs along each axis of the world.

    Returns:
        For world x, y and z the volume's axis (0 for x) and whether it runs the other way; None
        where the volume is oblique.
    """
    matrix = np.array(volume.direction).reshape(3, 3)
    axes = np.argmax(np.abs(matrix), axis=1)
    signs = np.sign(matrix[range(3), axes])
    ideal = np.zeros((3, 3))
    ideal[range(3), axes] = signs
    if sorted(axes) != [0, 1, 2] or np.abs(matrix - ideal).max() > _TILT:
        return None
    return tuple(axes.tolist()), tuple((signs < 0).tolist())


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
    found = axes_of_world(volume)
    if found is None:
        return _resample_oblique(volume, spacing, fill)
    axes, flips = found
    first = [0.0, 0.0, 0.0]
    for axis, flip in zip(axes, flips):
        first[axis] = volume.shape[2 - axis] - 1.0 if flip else 0.0
    # Arrays run (z, y, x).
    array = volume.array.transpose([2 - axis for axis in axes[::-1]])
    array = array[tuple(slice(None, None, -1 if flip else 1) for flip in flips[::-1])]
    return Volume(
        np.ascontiguousarray(array),
        tuple(volume.spacing[axis] for axis in axes),
        tuple(volume.voxel_to_world(np.array(first))[0]),
    ).resample(spacing)


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
