"""HU windows and 8-bit encoding of images in the HTML report."""

from __future__ import annotations

import base64

import cv2
import numpy as np

from ..overlay import window_to_uint8

__all__ = ["KNOTS", "WINDOWS", "choose_window", "encode_gray", "squeeze"]

#: Name → HU that become black and white.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "soft tissue": (-160.0, 240.0),
    "bone": (-450.0, 1050.0),
}
#: HU and gray values of slices whose window the reader sets in the browser: finest between fat and
#: contrast agent, where windows are narrow.
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
        A key of :data:`WINDOWS`: lung where much of the surroundings is air, bone where much of
        the box is cortical bone, otherwise soft tissue.
    """
    if inside.size and (inside > _CORTEX).mean() > 0.15:
        return "bone"
    if (surroundings < _AIR).mean() > 0.35:
        return "lung"
    return "soft tissue"


def squeeze(hu: np.ndarray) -> np.ndarray:
    """Compress HU of any shape to uint8 along :data:`KNOTS`."""
    return np.rint(np.interp(hu, *KNOTS)).astype(np.uint8)


def encode_gray(hu: np.ndarray, size: tuple[int, int], window: tuple[float, float] | None) -> str:
    """Encode a plane as a gray JPEG in base64.

    Args:
        hu: ``(H, W)``.
        size: Width and height of the picture.
        window: HU that become black and white; None for :func:`squeeze`.
    """
    hu = hu.astype(np.float32)
    shrinks = size[0] < hu.shape[1] or size[1] < hu.shape[0]
    if hu.shape[::-1] != tuple(size):
        # Before windowing: interpolated gray values would be clipped ones.
        hu = cv2.resize(hu, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    gray = squeeze(hu) if window is None else window_to_uint8(hu, window)
    _, jpeg = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return base64.b64encode(jpeg.tobytes()).decode()
