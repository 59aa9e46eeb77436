"""Contact sheets of planted lesions: before, after, and with the outline of the mask."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from ...structures.hu_window import apply_hu_window
from .plant import PlantedLesion
from .tissue import LUNG

__all__ = ["TILE", "lesion_row", "sheet_of_rows"]

#: Edge of a tile in pixels; a row has three of them.
TILE = 160
_WINDOWS = {LUNG: (-1350.0, 150.0)}
_WINDOW = (-160.0, 240.0)
# Least side of the part of a slice that is shown, in mm, and its ratio to the lesion.
_SIDE, _RATIO = 40.0, 2.5
_COLUMNS, _MOST_ROWS = 4, 20
_OUTLINE, _TEXT = (0, 200, 255), (90, 230, 90)


def lesion_row(before: np.ndarray, after: np.ndarray, lesion: PlantedLesion) -> np.ndarray:
    """Draw the key slice of a lesion.

    Args:
        before: HU of the scan, shape (D, H, W).
        after: HU with the lesion, of the same shape.
        lesion: The lesion.

    Returns:
        Three tiles side by side, shape (TILE, 3 * TILE, 3), uint8, BGR.
    """
    spacing = lesion.geometry.spacing
    z = lesion.key_slice
    box = lesion.box
    middle = (box[:2] + box[3:5]) / 2
    side = max(_SIDE, _RATIO * float(((box[3:5] - box[:2]) * spacing[:2]).max()))
    half = np.maximum(np.rint(side / 2 / np.array(spacing[:2])), 2).astype(int)
    x, y = np.rint(middle).astype(int)
    mask = np.zeros(before.shape[1:], np.uint8)
    first, top, left = lesion.start
    depth, height, width = lesion.mask.shape
    mask[top : top + height, left : left + width] = lesion.mask[z - first]
    low, high = _WINDOWS.get(lesion.tissue, _WINDOW)
    tiles = []
    for plane in (before[z], after[z]):
        part = _cut(plane.astype(np.float32), x, y, half)
        gray = apply_hu_window(part, (low, high)).astype(np.uint8)
        large = cv2.resize(gray, (TILE, TILE), interpolation=cv2.INTER_CUBIC)
        tiles.append(cv2.cvtColor(large, cv2.COLOR_GRAY2BGR))
    outlined = tiles[1].copy()
    shown = cv2.resize(_cut(mask, x, y, half), (TILE, TILE), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(shown, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(outlined, contours, -1, _OUTLINE, 1)
    text = f"{lesion.appearance.kind} {lesion.diameter:.0f} mm"
    cv2.putText(outlined, text, (4, TILE - 6), cv2.FONT_HERSHEY_SIMPLEX, 0.36, _TEXT, 1)
    return np.hstack([*tiles, outlined])


def sheet_of_rows(rows: Iterable[np.ndarray]) -> np.ndarray:
    """Arrange rows of tiles in columns; of more than 80, evenly chosen ones.

    Args:
        rows: Results of :func:`lesion_row`, at least one.

    Returns:
        The sheet, uint8, BGR.
    """
    chosen: Sequence[np.ndarray] = list(rows)
    most = _COLUMNS * _MOST_ROWS
    if len(chosen) > most:
        at = np.linspace(0, len(chosen) - 1, most).round().astype(int)
        chosen = [chosen[index] for index in at]
    columns = min(_COLUMNS, len(chosen))
    height = -(-len(chosen) // columns)
    blank = np.zeros_like(chosen[0])
    filled = [*chosen, *[blank] * (columns * height - len(chosen))]
    return np.hstack([np.vstack(filled[i * height : (i + 1) * height]) for i in range(columns)])


def _cut(plane: np.ndarray, x: int, y: int, half: np.ndarray) -> np.ndarray:
    """Cut a part around a pixel; beyond the image, the edge is repeated."""
    padded = np.pad(plane, ((half[1], half[1]), (half[0], half[0])), mode="edge")
    return padded[y : y + 2 * half[1], x : x + 2 * half[0]]
