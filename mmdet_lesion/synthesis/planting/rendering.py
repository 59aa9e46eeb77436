"""Sampling of turned and scaled shapes on the voxels of a scan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import ndimage

from .shapes import LesionShape

__all__ = ["RenderedShape", "random_rotation", "render_shape"]

# Subdivision of a voxel: cells of about this edge in mm, or this fraction of the diameter.
_CELL, _CELL_SHARE = 0.35, 1 / 30
_MOST_CELLS = 6_000_000
# Standard deviations of the point spread that are rendered around a lesion.
_REACH = 3.0


@dataclass(frozen=True)
class RenderedShape:
    """A shape on the voxels around it, which may lie partly outside of the volume.

    Args:
        start: First voxel (z, y, x).
        fraction: Fraction of each voxel that is in the lesion, shape (d, h, w), float32.
        opacity: The same after the point spread of the scan, shape (d, h, w), float32.
        texture: HU of the shape's texture, shape (d, h, w), or None.
    """

    start: tuple[int, int, int]
    fraction: np.ndarray
    opacity: np.ndarray
    texture: np.ndarray | None = None


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw a rotation, uniform over all of them, shape (3, 3)."""
    quaternion = rng.standard_normal(4)
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def render_shape(
    shape: LesionShape,
    rotation: np.ndarray,
    scale: float,
    center: ArrayLike,
    spacing: Sequence[float],
    point_spread: ArrayLike,
) -> RenderedShape:
    """Sample a shape on voxels, with partial volumes and the point spread of the scan.

    Args:
        shape: The shape.
        rotation: Rotation of (z, y, x), shape (3, 3).
        scale: Factor of the size.
        center: Position (z, y, x) of the centroid; the center of voxel i is at i.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
        point_spread: Standard deviation along (z, y, x) in voxels.

    Returns:
        The lesion on the voxels that it reaches.
    """
    edges = np.array(spacing[::-1], dtype=np.float64)
    middle = np.asarray(center, dtype=np.float64)
    spread = np.asarray(point_spread, dtype=np.float64)
    turned = scale * shape.points @ rotation.T / edges
    margin = np.ceil(_REACH * spread) + 1
    start = np.floor(middle + turned.min(axis=0) - margin).astype(int)
    stop = np.ceil(middle + turned.max(axis=0) + margin).astype(int) + 1
    parts = _subdivision(edges, stop - start, max(_CELL, _CELL_SHARE * scale * shape.diameter))
    # From cells of voxels to cells of the shape; the middle of each voxel is a cell's center.
    inner = rotation.T * edges / parts / (scale * shape.step)
    first = start - (parts // 2) / parts
    offset = rotation.T @ ((first - middle) * edges) / (scale * shape.step) + shape.center
    distance = ndimage.affine_transform(
        shape.distance,
        inner,
        offset,
        output_shape=tuple((stop - start) * parts),
        output=np.float32,
        order=1,
        mode="nearest",
    )
    ramp = scale / float(np.mean(edges / parts))
    cells = np.clip(0.5 - distance * ramp, 0, 1)
    d, h, w = (stop - start).tolist()
    kz, ky, kx = parts.tolist()
    fraction = cells.reshape(d, kz, h, ky, w, kx).mean(axis=(1, 3, 5))
    for axis in range(3):
        sigma = spread[axis] * parts[axis]
        cells = ndimage.gaussian_filter1d(cells, sigma, axis, mode="constant")
        cells = np.take(cells, np.arange(parts[axis] // 2, cells.shape[axis], parts[axis]), axis)
    texture = None
    if shape.texture is not None:
        inner = rotation.T * edges / (scale * shape.step)
        offset = rotation.T @ ((start - middle) * edges) / (scale * shape.step) + shape.center
        texture = ndimage.affine_transform(
            shape.texture, inner, offset, output_shape=(d, h, w), order=1, mode="nearest"
        )
        texture = ndimage.gaussian_filter(texture, spread, mode="nearest")
    first_voxel = (int(start[0]), int(start[1]), int(start[2]))
    return RenderedShape(first_voxel, fraction, cells, texture)


def _subdivision(edges: np.ndarray, voxels: np.ndarray, cell: float) -> np.ndarray:
    """Return the odd number of cells of a voxel along (z, y, x), so that one is in its middle."""
    while True:
        parts = 2 * np.ceil((edges / cell - 1) / 2).clip(0).astype(int) + 1
        if np.prod(voxels * parts) <= _MOST_CELLS or parts.max() == 1:
            return parts
        cell *= 1.3
