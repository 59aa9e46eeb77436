"""Overlays of boxes on slices."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from mmdet_lesion.io.atomic import atomic_write
from mmdet_lesion.structures.hu_window import apply_hu_window

__all__ = ["SOFT_TISSUE", "draw_lesion_overlay", "save_montage", "window_to_uint8"]

SOFT_TISSUE = (-175.0, 275.0)

_COLORS = {
    "annotated": (0, 200, 0),
    "not annotated": (230, 90, 200),
    "mined": (80, 160, 255),
    "detected": (255, 170, 0),
}
_BACKGROUND = (24, 24, 24)
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_FONT_SCALE = 0.45
#: Height of the strips with title and legend in pixels.
_STRIP = 20


def window_to_uint8(hu: np.ndarray, window: tuple[float, float] = SOFT_TISSUE) -> np.ndarray:
    """Convert HU to 8-bit gray values.

    Args:
        hu: HU values of any shape.
        window: HU window ``(low, high)``.

    Returns:
        Gray values of the same shape, uint8.
    """
    return np.rint(apply_hu_window(hu, window)).astype(np.uint8)


def _draw_boxes(
    canvas: np.ndarray,
    boxes: np.ndarray,
    scores: np.ndarray | None,
    color: tuple[int, int, int],
    scale: int,
) -> None:
    # Lines are drawn on the edges of pixels: edge e of the slice is at pixel e * scale.
    corners = np.rint(np.asarray(boxes, dtype=np.float64).reshape(-1, 4) * scale).astype(int)
    for i, (x1, y1, x2, y2) in enumerate(corners.tolist()):
        cv2.rectangle(canvas, (x1, y1), (x2, y2), color, 1)
        if scores is not None:
            y = y1 - 4 if y1 >= _STRIP else y2 + 14
            text = f"{float(scores[i]):.2f}"
            # A dark outline keeps scores legible on bone and on other boxes.
            for ink, thickness in ((_BACKGROUND, 3), (color, 1)):
                cv2.putText(canvas, text, (x1, y), _FONT, _FONT_SCALE, ink, thickness, cv2.LINE_AA)


def _strip(width: int, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
    strip = np.full((_STRIP, width, 3), _BACKGROUND, dtype=np.uint8)
    x = 6
    for text, color in entries:
        cv2.putText(strip, text, (x, 14), _FONT, _FONT_SCALE, color, 1, cv2.LINE_AA)
        x += cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] + 14
    return strip


def draw_lesion_overlay(
    image: np.ndarray,
    *,
    annotated: np.ndarray | None = None,
    hidden: np.ndarray | None = None,
    mined: np.ndarray | None = None,
    mined_scores: np.ndarray | None = None,
    detected: np.ndarray | None = None,
    detected_scores: np.ndarray | None = None,
    title: str = "",
    scale: int = 4,
) -> np.ndarray:
    """Draw boxes on an enlarged slice, with a title above and a legend below.

    Args:
        image: Gray values of shape (H, W), uint8, as from :func:`window_to_uint8`.
        annotated: Ground-truth boxes xyxy (edges, in pixels of ``image``), shape (N, 4), in green.
        hidden: Boxes of lesions without an annotation in training, shape (N, 4), in pink.
        mined: Boxes mined by the teacher, shape (N, 4), in blue.
        mined_scores: Scores of ``mined``, shape (N,).
        detected: Detections, shape (N, 4), in orange.
        detected_scores: Scores of ``detected``, shape (N,).
        title: Title of the image.
        scale: Positive integer factor by which the slice, but not the text, is enlarged.

    Returns:
        RGB image of shape (H * scale + 40, W * scale, 3), uint8.
    """
    size = (image.shape[1] * scale, image.shape[0] * scale)
    gray = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
    canvas = cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)
    layers = {
        "annotated": (annotated, None),
        "not annotated": (hidden, None),
        "mined": (mined, mined_scores),
        "detected": (detected, detected_scores),
    }
    legend = []
    for name, (boxes, scores) in layers.items():
        if boxes is not None:
            _draw_boxes(canvas, boxes, scores, _COLORS[name], scale)
            legend.append((name, _COLORS[name]))
    header = [(title, (235, 235, 235))]
    return np.concatenate([_strip(size[0], header), canvas, _strip(size[0], legend)])


def save_montage(
    images: Sequence[np.ndarray],
    path: str | os.PathLike,
    columns: int | None = None,
    gap: int = 6,
) -> Path:
    """Write images side by side as one PNG.

    Args:
        images: RGB images of shape (H, W, 3), uint8. Smaller images are padded to the largest.
        path: PNG file to write.
        columns: Images per row; by default about the number of rows.
        gap: Pixels between images.

    Returns:
        The path.

    Raises:
        ValueError: There are no images.
    """
    if not images:
        raise ValueError(f"there are no images for the montage {path}; expected at least one")
    columns = columns or math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    height = max(image.shape[0] for image in images) + gap
    width = max(image.shape[1] for image in images) + gap
    sheet = np.full((rows * height + gap, columns * width + gap, 3), _BACKGROUND, dtype=np.uint8)
    for i, image in enumerate(images):
        y, x = gap + i // columns * height, gap + i % columns * width
        sheet[y : y + image.shape[0], x : x + image.shape[1]] = image
    _, png = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    with atomic_write(path) as temporary:
        temporary.write_bytes(png.tobytes())
    return Path(path)
