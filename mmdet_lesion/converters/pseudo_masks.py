"""Segmentation of lesions from their RECIST diameters."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

__all__ = ["encode_mask", "pseudo_mask"]

_ITERATIONS = 3
# Fractional bits of OpenCV's drawing coordinates.
_SHIFT = 4
# Minimum margin around the box in pixels, from which the background is learned.
_MIN_MARGIN = 8
_WINDOW = (-1024.0, 3071.0)
# Ignored by GrabCut when it is initialized with a mask.
_NO_RECTANGLE = (0, 0, 0, 0)


def pseudo_mask(
    hu: np.ndarray,
    box: Sequence[float],
    recist: np.ndarray | None = None,
    window: Sequence[float] = _WINDOW,
) -> np.ndarray:
    """Segment a lesion within its box by GrabCut, initialized with the RECIST diameters.

    The quadrilateral of the diameters' ends is certain foreground, and the outside of the box is
    certain background. GrabCut labels the rest of the box. Only components that are connected to
    the quadrilateral are kept.

    Args:
        hu: Slice in HU, shape (H, W).
        box: Edges ``x1, y1, x2, y2`` in pixels.
        recist: Ends (x, y) of the long and then of the short diameter in pixels, shape (4, 2); the
            center of pixel i is at i + 0.5. By default the middle of the box is used instead.
        window: HU values that are mapped to black and white, preferably the HU window in which the
            lesion was measured.

    Returns:
        Mask of shape (H, W), bool. It is that of the box if the box leaves no background to learn
        from.

    Source: GrabCut (Rother et al., 2004); its use with RECIST measurements, Cai et al. (2018) and
    the public code of AlignShift (Yang et al., 2020).
    """
    height, width = hu.shape
    x1, y1, x2, y2 = box
    margin = max(x2 - x1, y2 - y1, 2 * _MIN_MARGIN) / 2
    left, top = int(max(x1 - margin, 0)), int(max(y1 - margin, 0))
    right, bottom = int(min(x2 + margin, width)), int(min(y2 + margin, height))
    corner = np.array([left, top])
    seeds = np.zeros((bottom - top, right - left), dtype=np.uint8)
    _fill(seeds, [[x1, y1], [x2, y1], [x2, y2], [x1, y2]] - corner, cv2.GC_PR_FGD, inset=0.5)
    if recist is None:
        center, half = np.array([x1 + x2, y1 + y2]) / 2, np.array([x2 - x1, y2 - y1]) / 8
        recist = center + half * [[-1, 0], [1, 0], [0, -1], [0, 1]]
    _fill(seeds, np.asarray(recist)[[0, 2, 1, 3]] - corner, cv2.GC_FGD)
    sure = seeds == cv2.GC_FGD
    if (seeds == cv2.GC_BGD).any():
        # GrabCut's clustering uses OpenCV's generator; the mask of a slice must be reproducible.
        cv2.setRNGSeed(0)
        gray = _to_gray(hu[top:bottom, left:right], window)
        background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(
            gray,
            seeds,
            _NO_RECTANGLE,
            background,
            foreground,
            _ITERATIONS,
            cv2.GC_INIT_WITH_MASK,
        )
    inside = (seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)
    _, parts = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    mask = np.zeros(hu.shape, dtype=bool)
    mask[top:bottom, left:right] = inside & np.isin(parts, parts[sure])
    return mask


def encode_mask(mask: np.ndarray) -> dict:
    """Encode a mask of shape (H, W) as COCO's RLE, with counts as text for JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _fill(canvas: np.ndarray, points: np.ndarray, value: int, inset: float = 0.0) -> None:
    """Fill a convex polygon in pixel edges, shrunk by ``inset`` pixels towards its center."""
    center = points.mean(0)
    points = points - 0.5 - inset * np.sign(points - center)
    fixed = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(canvas, fixed, value, cv2.LINE_8, _SHIFT)


def _to_gray(hu: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """Convert a slice to the 8-bit image with three channels that GrabCut expects."""
    low, high = window if window[0] < window[1] else _WINDOW
    gray = np.clip((hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=2)
