"""Voxels of the HTML report: compressed slices, exact blocks around lesions, and projections."""

from __future__ import annotations

import io
import math
import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from PIL import Image

from ...structures import Volume
from ..html import expand, mean_pixels, squeeze, to_base64, webp

__all__ = [
    "KEY_QUALITY",
    "CompressedSlices",
    "compress_slices",
    "exact_blocks",
    "hu_statistics",
    "projections",
    "reduce_volume",
    "size_limit",
]

#: Longer scans show every second, third … slice.
MAX_SLICES = 600
#: Larger slices are reduced by a whole factor.
MAX_SIDE = 800
#: Limit of the characters of a report of 300 slices of 512 x 512 pixels, and of smaller ones.
_SIZE, _SIZE_VOXELS, _SMALL_SIZE = 5.95e6, 300 * 512 * 512, 4e6
#: Share of the size that exact blocks may have.
_BLOCK_SHARE = 0.15
#: Margin of exact blocks around boxes, as a fraction of the box and in voxels.
_MARGIN, _MARGIN_VOXELS = 0.15, 2
_QUALITIES = (8, 90)
#: Standard deviations of Gaussian filters in pixels. Noise that does not fit at the sufficient
#: quality is smoothed, which keeps more of the edges than a lower quality.
_SMOOTHINGS, _SUFFICIENT = (0.0, 0.7, 1.0), 40
#: Lowest quality of the first key slices, and one of how many slices may have it.
KEY_QUALITY, _KEY_SHARE = 80, 16
#: Slices from which the quality and the errors are estimated.
_SAMPLE = 10
_PROJECTION = 320


@dataclass(frozen=True)
class CompressedSlices:
    """Slices as lossy WebP, and how much they differ from the scan.

    Args:
        images: An image for each slice, base64.
        quality: WebP's quality, 0 … 100.
        smoothing: Standard deviation in pixels of the Gaussian filter that was applied before.
        fine: Number of key slices without it and with a quality of at least 80.
        errors: ``rms`` and ``p99`` (99th percentile) of the absolute error in HU, by tissue
            (``soft tissue``, ``lung``), measured on some slices.
    """

    images: list[str]
    quality: int
    smoothing: float
    fine: int
    errors: dict[str, dict[str, float]]


def size_limit(shape: tuple[int, ...]) -> int:
    """Return the number of characters that the report of a volume of this shape may have."""
    return int(max(_SMALL_SIZE, _SIZE * math.prod(shape) / _SIZE_VOXELS))


def reduce_volume(volume: Volume) -> tuple[Volume, np.ndarray, np.ndarray]:
    """Reduce a volume to what the report shows; most volumes stay as they are.

    Args:
        volume: Volume with the axes of the patient.

    Returns:
        The volume with at most ``MAX_SLICES`` slices of at most ``MAX_SIDE`` pixels, and ``scale``
        and ``shift`` of shape (3,), with which the voxels ``(x, y, z)`` of the given volume become
        those of the result: ``scale * point + shift``.
    """
    depth, rows, columns = volume.shape
    step = -(-depth // MAX_SLICES)
    factor = -(-max(rows, columns) // MAX_SIDE)
    if step == factor == 1:
        return volume, np.ones(3), np.zeros(3)
    planes = volume.array[::step]
    if factor > 1:
        size = (max(1, columns // factor), max(1, rows // factor))
        cropped = planes[:, : size[1] * factor, : size[0] * factor]
        planes = np.stack([mean_pixels(plane, size) for plane in cropped])
    scale = 1 / np.array([factor, factor, step])
    # Slices are picked, so that the center of the first one stays; pixels are averaged.
    shift = np.array([0, 0, 0.5 - 0.5 / step])
    geometry = volume.geometry
    (origin,) = geometry.points_to_world((0.5 - shift) / scale)
    spacing = np.array(volume.spacing) / scale
    reduced = Volume(planes, tuple(spacing.tolist()), tuple(origin.tolist()), volume.direction)
    return reduced, scale, shift


def compress_slices(array: np.ndarray, characters: float, keys: list[int]) -> CompressedSlices:
    """Compress slices with the highest quality that fits.

    Args:
        array: HU, shape (D, H, W).
        characters: Limit of all images together.
        keys: Key slices, the most important first; the first of them have a higher quality.
    """
    fine = sorted(set(keys[: -(-len(array) // _KEY_SHARE)]))
    rest = characters - sum(map(len, _encode(array[fine], KEY_QUALITY)))
    sample = array[:: -(-len(array) // _SAMPLE)]
    # Slices that are not in the sample may be larger.
    wanted = rest / max(1, len(array) - len(fine)) * len(sample) / 1.01
    for smoothing in _SMOOTHINGS:
        quality = _best_quality(sample, wanted, smoothing)
        if quality >= _SUFFICIENT:
            break
    images = _encode_all(array, quality, smoothing, fine)
    while sum(map(len, images)) > characters and (fine or quality > _QUALITIES[0]):
        quality, fine = max(_QUALITIES[0], quality - 4), []
        images = _encode_all(array, quality, smoothing, fine)
    errors = _errors(sample, quality, smoothing)
    return CompressedSlices(images, quality, smoothing, len(fine), errors)


def _best_quality(sample: np.ndarray, characters: float, smoothing: float) -> int:
    low, high = _QUALITIES
    while low < high:
        quality = (low + high + 1) // 2
        fits = sum(map(len, _encode(sample, quality, smoothing))) <= characters
        low, high = (quality, high) if fits else (low, quality - 1)
    return low


def _encode_all(array: np.ndarray, quality: int, smoothing: float, fine: list[int]) -> list[str]:
    images = _encode(array, quality, smoothing)
    if quality < KEY_QUALITY:
        for z, image in zip(fine, _encode(array[fine], KEY_QUALITY)):
            images[z] = image
    return images


def _encode(planes: np.ndarray, quality: int, smoothing: float = 0.0) -> list[str]:
    # Encoding does not hold Python's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        gray = (_gray(plane, smoothing) for plane in planes)
        return list(pool.map(lambda plane: to_base64(webp(plane, quality)), gray))


def _gray(plane: np.ndarray, smoothing: float) -> np.ndarray:
    if smoothing:
        plane = cv2.GaussianBlur(plane.astype(np.float32), (0, 0), smoothing)
    return squeeze(plane)


def _errors(planes: np.ndarray, quality: int, smoothing: float) -> dict[str, dict[str, float]]:
    """Measure the HU errors of slices within the range of soft tissue and of lung."""
    tissues = {"soft tissue": (-150, 250), "lung": (-950, -600)}
    found: dict[str, list[np.ndarray]] = {name: [] for name in tissues}
    for plane in planes:
        with Image.open(io.BytesIO(webp(_gray(plane, smoothing), quality))) as image:
            error = np.abs(expand(np.asarray(image.convert("L"))) - plane)
        for name, (low, high) in tissues.items():
            found[name].append(error[(plane > low) & (plane < high)])
    values = {name: np.concatenate(parts) for name, parts in found.items()}
    return {
        name: dict(
            rms=round(float(np.sqrt(np.mean(error**2))), 1),
            p99=round(float(np.percentile(error, 99)), 1),
        )
        for name, error in values.items()
        if error.size
    }


def exact_blocks(
    array: np.ndarray, boxes: np.ndarray, keys: list[int], characters: float
) -> list[dict[str, Any] | None]:
    """Compress the voxels in and around boxes without loss.

    Large boxes are limited to slices around their key slice.

    Args:
        array: HU, shape (D, H, W), int16.
        boxes: Boxes in voxels, shape (N, 6), the most important first.
        keys: Key slice of each box.
        characters: Limit of all blocks together. Boxes beyond it have no block.

    Returns:
        For each box None or ``start`` ``[x, y, z]``, ``size`` ``[width, height, depth]`` and
        ``data``: the prediction errors of JPEG-LS's median predictor, slice by slice, with the
        sign in the lowest bit, first all low, then all middle, then all high bytes, compressed by
        zlib, base64.
    """
    bounds = np.array(array.shape[::-1])
    blocks: list[dict[str, Any] | None] = []
    left = _BLOCK_SHARE * characters
    share = left / min(max(len(boxes), 1), 8)
    for box, key in zip(boxes, keys):
        margin = np.maximum(_MARGIN * (box[3:] - box[:3]), _MARGIN_VOXELS)
        low = np.clip(np.floor(box[:3] - margin), 0, bounds - 1).astype(int)
        high = np.clip(np.ceil(box[3:] + margin), low + 1, bounds).astype(int)
        # A voxel takes about a byte, of which base64 makes 4 / 3 characters.
        depth = int(min(share, left) / (4 / 3 * math.prod((high - low)[:2])))
        if not depth:
            blocks.append(None)
            continue
        low[2] = max(low[2], min(key - depth // 2, high[2] - depth))
        high[2] = min(high[2], low[2] + depth)
        part = array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
        data = to_base64(_lossless(part))
        left -= len(data)
        blocks.append(dict(start=low.tolist(), size=(high - low).tolist(), data=data))
    return blocks


def _lossless(part: np.ndarray) -> bytes:
    padded = np.pad(part.astype(np.int32), ((0, 0), (1, 0), (1, 0)))
    west, north, corner = padded[:, 1:, :-1], padded[:, :-1, 1:], padded[:, :-1, :-1]
    low, high = np.minimum(west, north), np.maximum(west, north)
    error = part - np.clip(west + north - corner, low, high)
    # The sign moves to the lowest bit, so that small errors have an empty high byte.
    values = ((error << 1) ^ (error >> 31)).astype("<u4").ravel()
    planes = [(values >> shift & 255).astype(np.uint8).tobytes() for shift in (0, 8, 16)]
    return zlib.compress(b"".join(planes), 9)


def hu_statistics(array: np.ndarray, box: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation of the voxels with their center in a box.

    Args:
        array: HU, shape (D, H, W).
        box: Box in voxels of the array, shape (6,).
    """
    bounds = np.array(array.shape[::-1])
    # A box between centers is enlarged to one voxel.
    low = np.clip(np.ceil(box[:3] - 0.5), 0, bounds - 1).astype(int)
    high = np.clip(np.ceil(box[3:] - 0.5), low + 1, bounds).astype(int)
    part = array[low[2] : high[2], low[1] : high[1], low[0] : high[0]]
    return float(part.mean(dtype=np.float64)), float(part.std(dtype=np.float64))


def projections(volume: Volume, boxes: np.ndarray) -> list[dict[str, Any]]:
    """Render mean projections along the three axes, with the outlines of the boxes.

    Args:
        volume: Volume with the axes of the patient.
        boxes: Boxes in voxels of the volume, shape (N, 6).

    Returns:
        Coronal, sagittal and axial projection, superior up: ``name``, ``image`` (WebP, base64),
        ``width``, ``height`` and ``boxes`` ``[x, y, width, height]`` in fractions of the image.
    """
    depth, rows, columns = volume.shape
    sx, sy, sz = volume.spacing
    coronal = np.zeros((depth, columns))
    sagittal = np.zeros((depth, rows))
    axial = np.zeros((rows, columns))
    for z, plane in enumerate(volume.array):
        # Metal and values below air would dominate the mean.
        clipped = np.clip(plane, -1000, 600).astype(np.float32)
        coronal[z], sagittal[z] = clipped.mean(axis=0), clipped.mean(axis=1)
        axial += clipped / depth
    sizes = np.array([columns, rows, depth], dtype=float)
    low, high = boxes[:, :3] / sizes, boxes[:, 3:] / sizes
    views = (
        ("coronal", coronal[::-1], (columns * sx, depth * sz), 0, 2),
        ("sagittal", sagittal[::-1], (rows * sy, depth * sz), 1, 2),
        ("axial", axial, (columns * sx, rows * sy), 0, 1),
    )
    result = []
    for name, image, extent, across, down in views:
        top = 1 - high[:, down] if down == 2 else low[:, down]
        rectangles = np.column_stack(
            (low[:, across], top, (high - low)[:, across], (high - low)[:, down])
        )
        size = _fitted(*extent, _PROJECTION)
        result.append(
            dict(
                name=name,
                image=to_base64(webp(_stretched(image, size), 75)),
                width=size[0],
                height=size[1],
                boxes=np.round(rectangles, 5).tolist(),
            )
        )
    return result


def _fitted(width: float, height: float, side: int) -> tuple[int, int]:
    """Convert a size in mm to pixels, so that the longer side has ``side`` pixels."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _stretched(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a projection and stretch its gray values to uint8."""
    shrinks = size[0] < image.shape[1] or size[1] < image.shape[0]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    image = cv2.resize(image.astype(np.float32), size, interpolation=method)
    dark, bright = np.percentile(image, (1, 99.5))
    return np.clip(255 * (image - dark) / max(bright - dark, 1), 0, 255).astype(np.uint8)
