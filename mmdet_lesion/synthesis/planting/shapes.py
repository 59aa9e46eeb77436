"""Shapes of lesions at their own physical size, as signed distances."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from scipy import ndimage

from ...errors import InputError

__all__ = ["LesionShape", "shape_from_contours", "shape_from_mask"]

# Range of the edge of a cell in mm, and the number of cells along the longest side.
_STEPS = (0.25, 1.5)
_CELLS = 48
# Contours are drawn on pixels, whose corners are no property of the lesion: standard deviation, in
# pixels, of the blur that removes them.
_SMOOTHING = 0.5
# Subdivision of the pixels on which contours are drawn, and fractional bits of OpenCV's points.
_SUBPIXELS = 4
_SHIFT = 4
# LIDC's readers marked the first pixel outside of a nodule, half a pixel from its edge.
_OUTSIDE = 0.5
_MARGIN = 3
# Sections that were drawn by hand do not fit exactly on each other, which leaves steps and corners:
# standard deviation of the blur that rounds them, relative to the diameter.
_ROUNDING = 0.06


@dataclass(frozen=True)
class LesionShape:
    """Shape of a lesion, with its texture if it is known.

    Args:
        distance: Signed distance to the surface in mm, negative inside, shape (D, H, W), float32.
        step: Edge of the cubic cells in mm.
        name: Where the shape is from.
        patient: Patient of whom the lesion is.
        texture: HU of the lesion on the same cells without its edge and noise, shape (D, H, W);
            outside, values of the nearest cell of the lesion.
    """

    distance: np.ndarray
    step: float
    name: str = ""
    patient: str = ""
    texture: np.ndarray | None = None

    @cached_property
    def points(self) -> np.ndarray:
        """Centers of the cells in the lesion relative to its center in mm, shape (N, 3), zyx."""
        return (np.argwhere(self.distance < 0) - self.center) * self.step

    @cached_property
    def center(self) -> np.ndarray:
        """Index of the centroid, shape (3,), zyx, continuous."""
        return np.argwhere(self.distance < 0).mean(axis=0)

    @property
    def diameter(self) -> float:
        """Diameter in mm of a sphere of the same volume."""
        volume = float(np.count_nonzero(self.distance < 0)) * self.step**3
        return (6 * volume / math.pi) ** (1 / 3)


def shape_from_mask(
    mask: np.ndarray,
    spacing: Sequence[float],
    name: str = "",
    patient: str = "",
    hu: np.ndarray | None = None,
) -> LesionShape:
    """Build a shape from a mask of one lesion.

    Args:
        mask: Voxels of the lesion, shape (D, H, W), bool.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
        name: Where the shape is from.
        patient: Patient of whom the lesion is.
        hu: Scan on the same voxels, of which the texture is taken.

    Raises:
        InputError: The mask is empty.
    """
    if not mask.any():
        raise InputError(f"{name or 'mask'}: no voxel is labeled; expected a lesion")
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    sections = np.pad(mask[box], ((0, 0), (_MARGIN, _MARGIN), (_MARGIN, _MARGIN)))
    levels = np.arange(len(sections)) * float(spacing[2])
    pixel = (float(spacing[1]), float(spacing[0]))
    smoothing = _SMOOTHING * min(pixel)
    distance, step, first = _level_set(sections, levels, spacing[2], pixel, 0.0, smoothing)
    texture = None
    if hu is not None:
        start = [part.start for part in box]
        padded = np.array([0, _MARGIN, _MARGIN])
        cells = np.array([step / spacing[2], step / pixel[0], step / pixel[1]])
        offset = first / [spacing[2], *pixel] - padded + start
        texture = _texture(hu, mask, cells, offset, distance.shape, spacing)
    return LesionShape(distance, step, name, patient, texture)


def shape_from_contours(
    contours: Sequence[tuple[float, np.ndarray]],
    pixel: float,
    interval: float,
    name: str = "",
    patient: str = "",
) -> LesionShape:
    """Build a shape from polygons on slices, such as LIDC's.

    Args:
        contours: Level in mm and points in pixels, shape (N, 2), of each polygon. The points are
            the centers of the first pixels outside of the lesion; several polygons on a slice are
            joined.
        pixel: Edge of a pixel in mm.
        interval: Distance of the slices in mm.
        name: Where the shape is from.
        patient: Patient of whom the lesion is.

    Raises:
        InputError: There is no polygon with an area.
    """
    usable = [(level, points) for level, points in contours if len(points) >= 3]
    if not usable:
        raise InputError(f"{name or 'contours'}: no polygon of three points; expected a lesion")
    low = np.min([points.min(axis=0) for _, points in usable], axis=0) - _MARGIN
    high = np.max([points.max(axis=0) for _, points in usable], axis=0) + _MARGIN
    width, height = (np.ceil(high - low).astype(int) * _SUBPIXELS).tolist()
    levels = np.unique([level for level, _ in usable])
    sections = np.zeros((len(levels), height, width), np.uint8)
    for level, points in usable:
        # The center of subpixel i is at (i + 0.5) / _SUBPIXELS.
        drawn = ((points - low) * _SUBPIXELS - 0.5) * 2**_SHIFT
        plane = sections[int(np.searchsorted(levels, level))]
        cv2.fillPoly(plane, [np.rint(drawn).astype(np.int32)], 1, shift=_SHIFT)
    fine = pixel / _SUBPIXELS
    distance, step, _ = _level_set(
        sections > 0, levels, interval, (fine, fine), _OUTSIDE * pixel, _SMOOTHING * pixel
    )
    if not (distance < 0).any():
        raise InputError(f"{name or 'contours'}: the polygons have no area; expected a lesion")
    return LesionShape(_rounded(distance), step, name, patient)


def _rounded(distance: np.ndarray) -> np.ndarray:
    """Blur signed distances and shift them so that the volume inside does not change."""
    inside = int(np.count_nonzero(distance < 0))
    diameter = (6 * inside / math.pi) ** (1 / 3)
    blurred = ndimage.gaussian_filter(distance, _ROUNDING * diameter, mode="nearest")
    return blurred - np.partition(blurred, inside, axis=None)[inside]


def _level_set(
    sections: np.ndarray,
    levels: np.ndarray,
    interval: float,
    pixel: tuple[float, float],
    inset: float,
    smoothing: float,
) -> tuple[np.ndarray, float, np.ndarray]:
    """Interpolate sections to signed distances on cubic cells.

    Args:
        sections: Masks with an empty border, shape (S, H, W), bool.
        levels: Level of each section in mm, ascending, shape (S,).
        interval: Distance of the slices in mm.
        pixel: Edges (y, x) of a pixel in mm.
        inset: Distance in mm of the surface from the edge of the masks, inwards.
        smoothing: Standard deviation of the blur in the sections in mm.

    Returns:
        The distances, the edge of a cell in mm, and the position (z, y, x) of the first cell in mm
        from the center of the first pixel of the first section, shape (3,).
    """
    filled = sections.any(axis=(1, 2))
    sections, levels = sections[filled], levels[filled]
    planes = np.stack([_plane_distance(plane, pixel) + inset for plane in sections])
    planes = planes.astype(np.float32)
    first, last = levels[0] - interval, levels[-1] + interval
    sides = np.array([last - first, *np.multiply(planes.shape[1:], pixel)])
    step = float(np.clip(sides.max() / _CELLS, *_STEPS))
    at = np.arange(first, last + step, step)
    between = np.interp(at, levels, np.arange(len(levels)))
    below = np.minimum(between.astype(int), max(len(levels) - 2, 0))
    above = np.minimum(below + 1, len(levels) - 1)
    weight = (between - below).astype(np.float32)[:, None, None]
    stacked = planes[below] * (1 - weight) + planes[above] * weight
    # Beyond the outer sections, the lesion ends with round caps of half an interval.
    beyond = np.maximum(levels[0] - at, at - levels[-1]).clip(0) / (interval / 2)
    depth = np.maximum(-stacked.min(axis=(1, 2)), 0.1)
    stacked += (depth * beyond**2).astype(np.float32)[:, None, None]
    ratio = (step / pixel[0], step / pixel[1])
    shape = [len(at), *(int((n - 1) / r) + 1 for n, r in zip(planes.shape[1:], ratio))]
    blur = (0.5, max(smoothing / pixel[0], ratio[0] / 3), max(smoothing / pixel[1], ratio[1] / 3))
    stacked = ndimage.gaussian_filter(stacked, blur, mode="nearest")
    distance = ndimage.affine_transform(
        stacked, (1.0, *ratio), output_shape=tuple(shape), order=1, mode="nearest"
    )
    return distance, step, np.array([first - levels[0], 0.0, 0.0])


def _plane_distance(mask: np.ndarray, pixel: tuple[float, float]) -> np.ndarray:
    """Return the signed distance to the edge of a mask in mm; edges are those of pixels."""
    half = min(pixel) / 2
    inside = ndimage.distance_transform_edt(mask, pixel)
    outside = ndimage.distance_transform_edt(~mask, pixel)
    return np.where(mask, half - inside, outside - half)


def _texture(
    hu: np.ndarray,
    mask: np.ndarray,
    cells: np.ndarray,
    offset: np.ndarray,
    shape: tuple[int, ...],
    spacing: Sequence[float],
) -> np.ndarray:
    """Return the smoothed HU of a lesion on the cells of its shape, continued outside.

    Args:
        hu: HU of the scan, shape (D, H, W).
        mask: Voxels of the lesion of the same shape.
        cells: Edges (z, y, x) of a cell in voxels.
        offset: Position (z, y, x) of the first cell in voxels.
        shape: Number of cells.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
    """
    # The edge is a mixture of the lesion and its surroundings.
    core = ndimage.binary_erosion(mask)
    core = core if core.any() else mask
    blur = [1.0 / value for value in spacing[::-1]]
    weight = ndimage.gaussian_filter(core.astype(np.float32), blur)
    smooth = ndimage.gaussian_filter(np.where(core, hu, 0).astype(np.float32), blur)
    smooth = smooth / np.maximum(weight, 1e-3)
    nearest = ndimage.distance_transform_edt(
        ~core, spacing[::-1], return_distances=False, return_indices=True
    )
    continued = smooth[tuple(nearest)]
    return ndimage.affine_transform(
        continued, cells, offset, output_shape=shape, order=1, mode="nearest"
    )
