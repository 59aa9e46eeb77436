"""Images of the HTML report: slices, crops around lesions, and projections."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...structures import Volume
from .windows import WINDOWS, choose_window, encode_gray

__all__ = ["lesion_pictures", "projections", "viewer_slices"]

_AIR = -1024
#: Longer scans show every second, third … slice, so that a report stays below about 30 MB.
MAX_SLICES = 240
MAX_SIDE = 512
_THUMBNAIL = 300
_CROP = 300
_NEIGHBOR = 150
_PROJECTION = 320
#: Minimum size of a crop, and minimum distance of neighboring slices, in mm.
_FIELD = 80.0
_STEP = 3.0


def _fitted(width: float, height: float, side: int) -> tuple[int, int]:
    """Convert a size in mm to pixels, so that the longer side has ``side`` pixels."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def viewer_slices(volume: Volume, wanted: set[int]) -> dict[str, Any]:
    """Render the axial slices for the viewer.

    Args:
        volume: Volume with the axes of the patient.
        wanted: Slices that must be included.

    Returns:
        ``numbers`` (slices, ascending), ``images`` (base64), and ``width`` and ``height`` in square
        pixels.
    """
    depth, rows, columns = volume.shape
    stride = -(-depth // MAX_SLICES)
    numbers = sorted(wanted | set(range(0, depth, stride)))
    width, height = columns * volume.spacing[0], rows * volume.spacing[1]
    size = _fitted(width, height, min(MAX_SIDE, max(rows, columns, 256)))
    images = [encode_gray(volume.array[z], size, None) for z in numbers]
    return dict(numbers=numbers, images=images, width=size[0], height=size[1])


def lesion_pictures(volume: Volume, box: np.ndarray, key: int) -> dict[str, Any]:
    """Render the images of one lesion.

    Args:
        volume: Volume with the axes of the patient.
        box: Box in voxels of the volume, shape (6,).
        key: Key slice.

    Returns:
        ``window`` (name of the HU window), ``whole`` (key slice), ``crop`` (around the lesion) and
        ``neighbors``. Each image has ``image`` (base64), ``width``, ``height``, ``slice``,
        ``box`` ``[x, y, width, height]`` in fractions of the image, and ``shown`` (whether the box
        is on the slice).
    """
    array, (sx, sy, sz) = volume.array, volume.spacing
    depth, rows, columns = volume.shape
    x1, y1, _, x2, y2, _ = box
    plane = array[key]
    inside = _cut(plane, np.floor([x1, y1]), np.ceil([x2, y2]))
    name = choose_window(_cut(plane, *_around(box, 2.0)), inside)
    window = WINDOWS[name]

    field = max(_FIELD, 2.5 * max((x2 - x1) * sx, (y2 - y1) * sy))
    half = np.array([field / sx, field / sy]) / 2
    center = np.array([x1 + x2, y1 + y2]) / 2
    low = np.round(center - half).astype(int)
    high = np.maximum(np.round(center + half).astype(int), low + 1)

    def crop(z: int, side: int) -> dict[str, Any]:
        size = _fitted((high[0] - low[0]) * sx, (high[1] - low[1]) * sy, side)
        cut = _padded(array[z], low, high)
        return _picture(encode_gray(cut, size, window), size, z, box, low, high)

    size = _fitted(columns * sx, rows * sy, _THUMBNAIL)
    step = max(1, round(_STEP / sz))
    around = [key + step * i for i in (-2, -1, 1, 2)]
    return dict(
        window=name,
        whole=_picture(
            encode_gray(plane, size, window), size, key, box, np.zeros(2), np.array([columns, rows])
        ),
        crop=crop(key, _CROP),
        neighbors=[crop(z, _NEIGHBOR) for z in around if 0 <= z < depth],
    )


def _picture(
    image: str, size: tuple[int, int], z: int, box: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, Any]:
    span = (high - low).astype(float)
    start, end = (box[:2] - low) / span, (box[3:5] - low) / span
    shares = [round(float(value), 5) for value in (*start, *(end - start))]
    # A box is on a slice if it contains the center of the slice.
    shown = box[2] <= z + 0.5 < box[5]
    return dict(image=image, width=size[0], height=size[1], slice=z, box=shares, shown=bool(shown))


def _around(box: np.ndarray, factor: float) -> tuple[np.ndarray, np.ndarray]:
    center, half = (box[:2] + box[3:5]) / 2, (box[3:5] - box[:2]) / 2 * factor
    return np.floor(center - half), np.ceil(center + half)


def _cut(plane: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Crop a rectangle to the part inside the slice, at least one pixel."""
    bounds = np.array(plane.shape[::-1])
    a = np.clip(low, 0, bounds - 1).astype(int)
    b = np.clip(high, a + 1, bounds).astype(int)
    return plane[a[1] : b[1], a[0] : b[0]]


def _padded(plane: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Crop a rectangle of a slice, padded with air."""
    bounds = np.array(plane.shape[::-1])
    a, b = np.clip(low, 0, bounds), np.clip(high, 0, bounds)
    result = np.full((high - low)[::-1], _AIR, dtype=plane.dtype)
    result[a[1] - low[1] : b[1] - low[1], a[0] - low[0] : b[0] - low[0]] = plane[
        a[1] : b[1], a[0] : b[0]
    ]
    return result


def projections(volume: Volume, boxes: np.ndarray) -> list[dict[str, Any]]:
    """Render mean projections along the three axes, with the outlines of the boxes.

    Args:
        volume: Volume with the axes of the patient.
        boxes: Boxes in voxels of the volume, shape (N, 6).

    Returns:
        Coronal, sagittal and axial projection, superior up: ``name``, ``image`` (base64),
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
        dark, bright = np.percentile(image, (1, 99.5))
        size = _fitted(*extent, _PROJECTION)
        result.append(
            dict(
                name=name,
                image=encode_gray(image, size, (float(dark), float(max(bright, dark + 1)))),
                width=size[0],
                height=size[1],
                boxes=np.round(rectangles, 5).tolist(),
            )
        )
    return result
