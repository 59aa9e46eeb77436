"""Transfer of label maps to the voxels of a scan."""

from __future__ import annotations

import numpy as np

from ...errors import InputError
from ...structures import Geometry, Volume

__all__ = ["place_labels"]


def place_labels(
    labels: Volume, image: Geometry, tolerance: float, resample: bool, name: str
) -> np.ndarray:
    """Return the labels at the voxels of a scan.

    The axes of a label map on the grid of the scan are permuted, flipped and shifted by whole
    voxels, which is exact; it may cover a part of the scan. Another grid is refused, or resampled
    by the nearest voxel.

    Args:
        labels: The label map, int32.
        image: Geometry of the scan.
        tolerance: Largest distance in mm between voxels of the label map and of the scan on the
            same grid.
        resample: Whether to resample label maps on another grid.
        name: The file, for messages.

    Returns:
        Labels, shape ``image.shape``, int32; 0 where the label map does not cover the scan.

    Raises:
        InputError: The label map is on another grid and ``resample`` is False, or labeled voxels
            lie outside the scan.
    """
    own = labels.geometry
    axes, offset, distance = _nearest_grid(own, image)
    if axes is not None and distance <= tolerance:
        placed, outside = _shift(labels.array, axes, offset, image.shape)
    elif resample:
        placed, outside = _nearest(labels, image)
    else:
        raise InputError(
            f"{name} is not on the grid of its scan: {_describe(own)} instead of "
            f"{_describe(image)}, up to {distance:.3g} mm apart; expected the same voxels within "
            f"{tolerance:g} mm (--resample takes the nearest ones)"
        )
    if outside:
        raise InputError(
            f"{name} has {outside} labeled voxels outside the scan; expected none: is it the mask "
            "of this scan?"
        )
    return placed


def _describe(geometry: Geometry) -> str:
    size = " x ".join(map(str, geometry.size.tolist()))
    spacing = " x ".join(f"{value:.4g}" for value in geometry.spacing)
    origin = ", ".join(f"{value:.1f}" for value in geometry.origin)
    return f"{size} voxels of {spacing} mm from ({origin}) mm"


def _nearest_grid(own: Geometry, image: Geometry) -> tuple[np.ndarray | None, np.ndarray, float]:
    """Find the permutation and shift of whole voxels that is nearest to the actual transform.

    Returns:
        Signed permutation of (x, y, z), shape (3, 3), or None if the axes do not correspond; shift
        in voxels, shape (3,); and the largest distance in mm between a voxel of the label map and
        the voxel of the scan that it becomes, or, without a permutation, between equal corners.
    """
    corners = np.array(np.meshgrid(*[(0.0, 1.0)] * 3, indexing="ij")).reshape(3, 8).T
    centers = corners * (own.size - 1) + 0.5
    world = own.points_to_world(centers)
    to_image = np.linalg.inv(image.matrix * image.spacing) @ (own.matrix * own.spacing)
    axes = np.rint(to_image)
    if not (np.abs(axes).sum(axis=0) == 1).all() or not (np.abs(axes).sum(axis=1) == 1).all():
        other = image.points_to_world(corners * (image.size - 1) + 0.5)
        return None, np.zeros(3), float(np.linalg.norm(world - other, axis=1).max())
    first = image.points_to_voxels(own.points_to_world([[0.5, 0.5, 0.5]]))[0] - 0.5
    offset = np.rint(first)
    placed = (centers - 0.5) @ axes.T + offset + 0.5
    distance = np.linalg.norm(world - image.points_to_world(placed), axis=1).max()
    return axes, offset, float(distance)


def _shift(
    array: np.ndarray, axes: np.ndarray, offset: np.ndarray, shape: tuple[int, int, int]
) -> tuple[np.ndarray, int]:
    """Permute, flip and shift labels, and count the labeled voxels that leave the shape."""
    # Rows of ``axes`` are axes (x, y, z) of the scan; arrays are (z, y, x).
    order = [2 - int(np.flatnonzero(axes[2 - axis])[0]) for axis in range(3)]
    signs = [int(axes[2 - axis].sum()) for axis in range(3)]
    moved = array.transpose(order)
    moved = np.flip(moved, [axis for axis in range(3) if signs[axis] < 0])
    starts = [int(offset[2 - axis]) for axis in range(3)]
    starts = [
        start - (moved.shape[axis] - 1) * (signs[axis] < 0) for axis, start in enumerate(starts)
    ]
    if not any(starts) and moved.shape == shape:
        return np.ascontiguousarray(moved), 0
    low = [max(start, 0) for start in starts]
    high = [min(start + n, m) for start, n, m in zip(starts, moved.shape, shape)]
    placed = np.zeros(shape, dtype=array.dtype)
    if all(a < b for a, b in zip(low, high)):
        inside = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, starts))
        placed[tuple(slice(a, b) for a, b in zip(low, high))] = moved[inside]
    return placed, int(np.count_nonzero(array)) - int(np.count_nonzero(placed))


def _nearest(labels: Volume, image: Geometry) -> tuple[np.ndarray, int]:
    """Resample labels by the nearest voxel, and count the labeled voxels outside the scan."""
    import SimpleITK as sitk  # noqa: N813

    points = np.argwhere(labels.array)[:, ::-1] + 0.5
    voxels = image.points_to_voxels(labels.geometry.points_to_world(points))
    outside = int(np.count_nonzero(~np.all((voxels >= 0) & (voxels <= image.size), axis=1)))
    resampler = sitk.ResampleImageFilter()
    resampler.SetInterpolator(sitk.sitkNearestNeighbor)
    resampler.SetSize(image.size.tolist())
    resampler.SetOutputSpacing(image.spacing)
    resampler.SetOutputOrigin(image.origin)
    resampler.SetOutputDirection(image.direction)
    placed = sitk.GetArrayFromImage(resampler.Execute(labels.to_sitk()))
    missing = np.setdiff1d(labels.array, [0, *np.unique(placed)])
    if not outside and len(missing):
        raise InputError(
            f"the labels {', '.join(map(str, missing.tolist()))} have no voxel on the coarser grid "
            "of the scan; expected a mask of its resolution"
        )
    return placed, outside
