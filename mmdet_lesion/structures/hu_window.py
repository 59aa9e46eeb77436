"""Conversion of Hounsfield units to gray values."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import InputError

__all__ = ["apply_hu_window", "check_hu_window"]


def check_hu_window(owner: str, window: Sequence[float]) -> tuple[float, float]:
    """Check an HU window and return it as two floats.

    Raises:
        InputError: The HU window is not a pair ``low < high``; the message names ``owner``.
    """
    if len(window) != 2 or not window[0] < window[1]:
        raise InputError(f"{owner} has hu_window={window!r}; expected two HU values (low, high)")
    return float(window[0]), float(window[1])


def apply_hu_window(
    hu: np.ndarray, window: Sequence[float], maximum: float = 255.0, copy: bool = True
) -> np.ndarray:
    """Clip to an HU window and scale linearly to 0 … ``maximum``.

    Args:
        hu: Hounsfield units, any shape.
        window: HU window ``(low, high)``; ``low`` is mapped to 0 and ``high`` to ``maximum``.
        maximum: Largest gray value.
        copy: Whether to copy ``hu``; False overwrites it if it is float32.

    Returns:
        Gray values of the same shape, float32.
    """
    low, high = window
    gray = hu.astype(np.float32, copy=copy)
    np.clip(gray, low, high, out=gray)
    gray -= np.float32(low)
    gray *= np.float32(maximum / (high - low))
    return gray
