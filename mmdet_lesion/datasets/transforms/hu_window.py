"""From Hounsfield units to gray values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmdet_lesion.errors import InputError

__all__ = ["apply_hu_window", "check_hu_window"]


def check_hu_window(owner: str, window: Sequence[float]) -> tuple[float, float]:
    """Return an HU window as two floats.

    Raises:
        InputError: It is not a pair ``low < high``; the message names ``owner``.
    """
    if len(window) != 2 or not window[0] < window[1]:
        raise InputError(f"{owner} has hu_window={window!r}; expected two HU values (low, high)")
    return float(window[0]), float(window[1])


def apply_hu_window(
    hu: np.ndarray, window: Sequence[float], maximum: float = 255.0, copy: bool = True
) -> np.ndarray:
    """Clip to an HU window and scale it linearly to 0 … ``maximum``.

    Args:
        hu: Hounsfield units, any shape.
        window: ``(low, high)`` in HU; ``low`` becomes 0 and ``high`` the maximum.
        maximum: Largest gray value.
        copy: Return a new array; False overwrites ``hu`` where it is float32.

    Returns:
        float32 of the same shape.
    """
    low, high = window
    gray = hu.astype(np.float32, copy=copy)
    np.clip(gray, low, high, out=gray)
    gray -= np.float32(low)
    gray *= np.float32(maximum / (high - low))
    return gray
