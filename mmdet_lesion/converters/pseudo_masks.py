"""Masks of lesions grown from their RECIST diameters."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from pycocotools import mask as coco_mask

__all__ = ["encode_mask", "pseudo_mask"]

_ITERATIONS = 3
# Fractional bits of OpenCV's drawing coordinates.
_SHIFT = 4
# What surrounds the box and teaches the background: half a box, at least so many pixels.
_LEAST_MARGIN = 8
_WINDOW = (-1024.0, 3071.0)
# Not read where the seeds are given.
_NO_RECTANGLE = (0, 0, 0, 0)


def pseudo_mask(
    hu: np.ndarray,
    box: Sequence[float],
    recist: np.ndarray | None = None,
    window: Sequence[float] = _WINDOW,
) -> np.ndarray:
    """Segment a lesion by GrabCut within its box, from the diameters outwards.

    The quadrilateral of the diameters' ends is foreground for certain, the outside of the box
    background; the rest of the box is what GrabCut decides on. Of the result the part that hangs
    together with the diameters is kept.

    Args:
        hu: (H, W) slice in HU.
        box: x1, y1, x2, y2 edges in pixels.
        recist: (4, 2) ends x, y of the long, then of the short diameter (a pixel's center is at
            i + 0.5). Without it the middle of the box stands for them.
        window: HU that become black and white; the reader's shows the lesion best.

    Returns:
        (H, W) bool. Where the box leaves no background to learn from, the quadrilateral itself.

    Source: GrabCut (Rother et al., 2004); for RECIST measurements, Cai et al., 2018, and the public
    code of AlignShift (Yang et al., 2020).
    """
    height, width = hu.shape
    x1, y1, x2, y2 = box
    margin = max(x2 - x1, y2 - y1, 2 * _LEAST_MARGIN) / 2
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
        # Its clustering draws from OpenCV's generator: the same slice, the same mask.
        cv2.setRNGSeed(0)
        gray = _grey(hu[top:bottom, left:right], window)
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
    """Encode a (H, W) mask as COCO's RLE with text counts, fit for JSON."""
    rle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}


def _fill(canvas: np.ndarray, points: np.ndarray, value: int, inset: float = 0.0) -> None:
    """Fill the pixels of a convex polygon given in pixel edges; ``inset`` keeps to whole pixels."""
    center = points.mean(0)
    points = points - 0.5 - inset * np.sign(points - center)
    fixed = np.rint(points * (1 << _SHIFT)).astype(np.int32)
    cv2.fillConvexPoly(canvas, fixed, value, cv2.LINE_8, _SHIFT)


def _grey(hu: np.ndarray, window: Sequence[float]) -> np.ndarray:
    """8-bit picture with three channels, as GrabCut takes it."""
    low, high = window if window[0] < window[1] else _WINDOW
    gray = np.clip((hu.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    return np.repeat(np.rint(gray).astype(np.uint8)[..., None], 3, axis=2)
