"""HU windows and 8-bit encoding of images in the HTML report."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from ..overlay import window_to_uint8

__all__ = ["KNOTS", "WINDOWS", "choose_window", "encode_gray", "squeeze"]

#: HU values that are mapped to black and white, by name.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "soft tissue": (-160.0, 240.0),
    "bone": (-450.0, 1050.0),
}
#: HU and gray values of the knots that map HU to the viewer's 8-bit slices, to which the browser
#: applies HU windows. Steps are finest between fat and contrast agent, where HU windows are narrow.
KNOTS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (-1024.0, -200.0, 300.0, 1800.0),
    (0.0, 60.0, 190.0, 255.0),
)
_QUALITY = 90
_AIR = -500
_CORTEX = 250


def choose_window(surroundings: np.ndarray, inside: np.ndarray) -> str:
    """Choose the HU window in which a lesion is visible.

    Args:
        surroundings: HU in and around the lesion's box on its key slice.
        inside: HU in the box.

    Returns:
        Key of :data:`WINDOWS`: bone if much of the box is cortical bone, lung if much of the
        surroundings is air, otherwise soft tissue.
    """
    if inside.size and (inside > _CORTEX).mean() > 0.15:
        return "bone"
    if (surroundings < _AIR).mean() > 0.35:
        return "lung"
    return "soft tissue"


def squeeze(hu: np.ndarray) -> np.ndarray:
    """Convert HU of any shape to uint8 by interpolation between :data:`KNOTS`."""
    return np.rint(np.interp(hu, *KNOTS)).astype(np.uint8)


def encode_gray(hu: np.ndarray, size: tuple[int, int], window: tuple[float, float] | None) -> str:
    """Encode a slice as a gray JPEG in base64.

    Args:
        hu: HU values, shape (H, W).
        size: Width and height of the image.
        window: HU window; None for :func:`squeeze`.
    """
    hu = hu.astype(np.float32)
    shrinks = size[0] < hu.shape[1] or size[1] < hu.shape[0]
    if hu.shape[::-1] != tuple(size):
        # Before windowing, since the gray values are clipped.
        hu = cv2.resize(hu, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    gray = squeeze(hu) if window is None else window_to_uint8(hu, window)
    _, jpeg = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return base64.b64encode(jpeg.tobytes()).decode()
