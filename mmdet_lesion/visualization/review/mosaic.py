"""Slices around a candidate, as one image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...io.volume_store import StoredVolume
from ..html import choose_window, mean_pixels, squeeze, webp

__all__ = ["Mosaic", "cut_mosaic"]

#: Edge of a crop in mm, and least distance of the box from its border. Crops of boxes that need
#: more show the whole slice.
_FIELD, _MARGIN = 128.0, 20.0
#: Slices on both sides of the key slice, and of the box.
_NEIGHBORS, _BEYOND = 8, 2
#: Longer candidates show this many slices around the key slice.
_MAX_SLICES = 96
#: Crops with more pixels on a side are reduced by a whole factor.
_MAX_SIDE = 512
# On two body CTs, the error in soft tissue is 43 % smaller than with 80, the images 51 % larger.
_QUALITY = 90


@dataclass(frozen=True)
class Mosaic:
    """Crops of consecutive slices, side by side in one image.

    Args:
        image: Lossy WebP of gray values (:func:`~mmdet_lesion.visualization.html.squeeze`), row by
            row from the first slice.
        columns: Number of crops in a row of the image.
        first: First slice.
        count: Number of slices.
        size: Width and height of a crop in pixels of the image.
        corner: Upper left corner ``(x, y)`` of the crops in pixels of the volume.
        step: Pixels of the volume per pixel of the image.
        window: HU window in which the candidate is visible, a key of
            :data:`~mmdet_lesion.visualization.html.WINDOWS`.
    """

    image: bytes
    columns: int
    first: int
    count: int
    size: tuple[int, int]
    corner: tuple[int, int]
    step: int
    window: str

    def place(self, boxes: np.ndarray) -> np.ndarray:
        """Convert boxes xyxy (N, 4) in pixels of the volume to pixels of a crop."""
        return (boxes - np.tile(self.corner, 2)) / self.step

    def shows(self, z: int, box: np.ndarray) -> bool:
        """Return whether a box in pixels of a crop, on a slice of the volume, is visible."""
        inside = (box[:2] < self.size).all() and (box[2:] > 0).all()
        return bool(inside) and self.first <= z < self.first + self.count


def cut_mosaic(volume: StoredVolume, slices: np.ndarray, boxes: np.ndarray, key: int) -> Mosaic:
    """Cut the slices around a candidate.

    Args:
        volume: The volume.
        slices: Slice of each box, ascending, shape (N,).
        boxes: Boxes xyxy in pixels of the volume, shape (N, 4).
        key: Key slice, one of ``slices``.

    Returns:
        A crop of 128 mm, or of the whole slice around a large candidate, on the key slice, eight
        slices on both sides of it, and two on both sides of the candidate.
    """
    depth, *plane = volume.shape
    first = max(0, min(key - _NEIGHBORS, int(slices[0]) - _BEYOND))
    last = min(depth - 1, max(key + _NEIGHBORS, int(slices[-1]) + _BEYOND))
    if last - first >= _MAX_SLICES:
        first = max(first, min(key - _MAX_SLICES // 2, last + 1 - _MAX_SLICES))
        last = first + _MAX_SLICES - 1
    low, high = boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)
    spacing = np.array(volume.spacing[:2])
    bounds = np.array(plane[::-1])
    size = np.ceil(_FIELD / spacing).astype(int)
    if ((high - low) * spacing + 2 * _MARGIN > _FIELD).any():
        size = bounds
    size = np.minimum(size, bounds)
    corner = np.clip(np.rint((low + high - size) / 2).astype(int), 0, bounds - size)
    end = corner + size
    crops = volume.read_crop((first, corner[1], corner[0]), (last + 1, end[1], end[0]))
    step = math.ceil(max(size) / _MAX_SIDE)
    if step > 1:
        width, height = (size // step).tolist()
        inside = crops[:, : height * step, : width * step]
        crops = np.stack([mean_pixels(crop, (width, height)) for crop in inside])
    (key_plane,) = volume.read_slices(key, key + 1)
    box = boxes[int(np.searchsorted(slices, key))]
    count, height, width = crops.shape
    columns = math.ceil(math.sqrt(count * height / width))
    return Mosaic(
        webp(squeeze(_tile(crops, columns)), _QUALITY),
        columns,
        first,
        count,
        (width, height),
        (int(corner[0]), int(corner[1])),
        step,
        choose_window(key_plane, box),
    )


def _tile(crops: np.ndarray, columns: int) -> np.ndarray:
    """Arrange crops (D, H, W) in rows; the rest of the last row is air."""
    count, height, width = crops.shape
    rows = -(-count // columns)
    full = np.full((rows * columns, height, width), -1024, dtype=crops.dtype)
    full[:count] = crops
    grid = full.reshape(rows, columns, height, width).swapaxes(1, 2)
    return grid.reshape(rows * height, columns * width)
