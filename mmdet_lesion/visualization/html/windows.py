"""HU windows of the HTML pages, and the choice of one for a lesion."""

from __future__ import annotations

import cv2
import numpy as np

__all__ = ["KNOTS", "WINDOWS", "body_mask", "choose_window", "expand", "squeeze"]

#: HU values that are mapped to black and white, by name.
WINDOWS: dict[str, tuple[float, float]] = {
    "lung": (-1350.0, 150.0),
    "soft tissue": (-160.0, 240.0),
    "bone": (-450.0, 1050.0),
    "liver": (-45.0, 105.0),
    "brain": (0.0, 80.0),
}
#: HU and gray values of the knots that map HU to the 8-bit slices, to which the browser applies HU
#: windows. Steps are finest between fat and contrast agent, where HU windows are narrow.
KNOTS: tuple[tuple[float, ...], tuple[float, ...]] = (
    (-1024.0, -200.0, 300.0, 1800.0),
    (0.0, 60.0, 190.0, 255.0),
)
_LUNG = -500
_CORTEX = 250
# The mean of a few pixels of room air is below this value, that of lungs above it.
_ROOM_AIR = -930


def body_mask(plane: np.ndarray) -> np.ndarray:
    """Find the body on an axial slice: all but the room air that touches the slice's border.

    Lungs that a cropped slice cuts open belong to the body.

    Args:
        plane: HU, shape (H, W).

    Returns:
        Mask of the same shape, bool.
    """
    smooth = cv2.blur(plane.astype(np.float32), (5, 5))
    _, parts = cv2.connectedComponents((smooth < _ROOM_AIR).astype(np.uint8))
    border = np.unique(np.concatenate((parts[0], parts[-1], parts[:, 0], parts[:, -1])))
    return ~np.isin(parts, border[border > 0])


def choose_window(plane: np.ndarray, box: np.ndarray | None = None) -> str:
    """Choose the HU window in which a lesion is visible.

    Only the body counts: the air around it does not make a lesion of the skin one of the lung.

    Args:
        plane: HU of an axial slice, shape (H, W).
        box: Box ``[x1, y1, x2, y2]`` of the lesion in pixels; None for the whole slice.

    Returns:
        Key of :data:`WINDOWS`: bone if much of the box is cortical bone, lung if much of the body
        in and around the box is lung, otherwise soft tissue.
    """
    around: tuple[slice, ...] = (slice(None), slice(None))
    if box is not None:
        low, high = np.reshape(box, (2, 2))
        inside = plane[_cut(low, high, plane.shape)]
        if (inside > _CORTEX).mean() > 0.15:
            return "bone"
        half = (high - low) / 2
        around = _cut(low - half, high + half, plane.shape)
    body = plane[around][body_mask(plane)[around]]
    return "lung" if body.size and (body < _LUNG).mean() > 0.35 else "soft tissue"


def _cut(low: np.ndarray, high: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return the rows and columns of a rectangle, at least one pixel of the slice."""
    bounds = np.array(shape[::-1])
    first = np.clip(np.floor(low), 0, bounds - 1).astype(int)
    last = np.clip(np.ceil(high), first + 1, bounds).astype(int)
    return slice(first[1], last[1]), slice(first[0], last[0])


def squeeze(hu: np.ndarray) -> np.ndarray:
    """Convert HU of any shape to uint8 by interpolation between :data:`KNOTS`."""
    return np.rint(np.interp(hu, *KNOTS)).astype(np.uint8)


def expand(gray: np.ndarray) -> np.ndarray:
    """Convert the result of :func:`squeeze` to HU, float64."""
    return np.interp(gray, KNOTS[1], KNOTS[0])
