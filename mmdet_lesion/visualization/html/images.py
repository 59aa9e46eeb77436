"""Images inside HTML pages."""

from __future__ import annotations

import base64
import io

import cv2
import numpy as np
from PIL import Image

__all__ = ["mean_pixels", "to_base64", "webp"]


def webp(gray: np.ndarray, quality: int) -> bytes:
    """Compress gray values (H, W), uint8, as lossy WebP of a quality of 0 … 100."""
    buffer = io.BytesIO()
    Image.fromarray(gray).save(buffer, "WEBP", quality=quality)
    return buffer.getvalue()


def to_base64(content: bytes) -> str:
    """Encode bytes as base64."""
    return base64.b64encode(content).decode()


def mean_pixels(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Reduce a slice to fewer pixels by averaging.

    Args:
        plane: HU, shape (H, W).
        size: Width and height of the result, not larger than the slice.

    Returns:
        HU rounded to integers, int16.
    """
    averaged = cv2.resize(plane.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.rint(averaged).astype(np.int16)
