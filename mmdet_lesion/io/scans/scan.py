"""A scan as it was read: the volume, where it came from, and what is odd about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...structures import Volume

__all__ = ["AIR", "Scan", "check_values", "to_hu"]

AIR = -1024
_LIMITS = np.iinfo(np.int16)
# The lungs, the bowel or the room around the patient hold air in every usual CT.
_DARKEST_EXPECTED = -200
_SLAB = 64


@dataclass
class Scan:
    """A CT scan.

    Args:
        volume: int16 HU ``(D, H, W)`` in the order of the file, or of the positions for slices.
        path: The file or folder.
        kind: ``'dicom'``, ``'image'`` or ``'png'``.
        series_uid: DICOM's Series Instance UID.
        slice_files: The file of every slice, None where it was interpolated; empty for a single
            file.
        warnings: What is odd and was dealt with, one sentence each.
    """

    volume: Volume
    path: Path
    kind: str
    series_uid: str | None = None
    slice_files: tuple[Path | None, ...] = ()
    warnings: list[str] = field(default_factory=list)


def to_hu(array: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Voxels of any number type as int16 HU.

    Args:
        array: Voxels; what is not finite becomes air, fractions are rounded.
        name: The file, for messages.

    Returns:
        int16 of the same shape, and warnings.

    Raises:
        InputError: No voxel is finite.
    """
    if array.dtype == np.int16:
        return array, []
    result = np.empty(array.shape, dtype=np.int16)
    # Piece by piece, as the copies in between are four times as large.
    bad = 0
    for start in range(0, len(array), _SLAB):
        piece = array[start : start + _SLAB]
        if np.issubdtype(array.dtype, np.floating):
            finite = np.isfinite(piece)
            bad += piece.size - int(finite.sum())
            piece = np.rint(np.where(finite, piece, AIR))
        result[start : start + _SLAB] = np.clip(piece, _LIMITS.min, _LIMITS.max)
    if bad == array.size:
        raise InputError(f"{name}: no voxel is a finite number; expected HU")
    share = f"{100 * bad / array.size:.2g} %"
    return result, [f"{bad} voxels ({share}) are NaN or infinite and became air"] if bad else []


def check_values(hu: np.ndarray) -> list[str]:
    """Warnings about values that do not look like HU."""
    low, high = int(hu.min()), int(hu.max())
    if low == high:
        return [f"all voxels have the value {low}"]
    if low > _DARKEST_EXPECTED:
        return [
            f"the values, {low} to {high}, reach nowhere down to air (-1000): are they HU, with "
            "the rescale intercept applied?"
        ]
    return []
