"""Scans as read from files: volume, source and warnings."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...structures import Volume

__all__ = ["AIR", "Scan", "check_values", "to_hu"]

AIR = -1024
_LIMITS = np.iinfo(np.int16)
# Nearly all CT scans contain air: the lungs, the bowel or the room around the patient.
_DARKEST_EXPECTED = -200
_SLAB = 64


@dataclass
class Scan:
    """A CT scan.

    Args:
        volume: Volume of HU, int16; slices are in the order of the file or of their positions.
        path: The file or folder.
        kind: ``'dicom'``, ``'image'`` or ``'png'``.
        series_uid: DICOM Series Instance UID.
        slice_files: File of each slice, or None for interpolated slices; empty for a single file.
        instances: DICOM's InstanceNumber of each slice, or None if it is interpolated or has none;
            empty for other formats.
        header: DICOM elements of the patient, the study and the series, by keyword.
        warnings: Irregularities that were corrected or ignored, one sentence each.
    """

    volume: Volume
    path: Path
    kind: str
    series_uid: str | None = None
    slice_files: tuple[Path | None, ...] = ()
    instances: tuple[int | None, ...] = ()
    header: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def to_hu(array: np.ndarray, name: str) -> tuple[np.ndarray, list[str]]:
    """Convert voxels of any numeric dtype to int16 HU.

    Args:
        array: Voxels. Non-finite values become air, and fractions are rounded.
        name: The file, for messages.

    Returns:
        HU of the same shape, int16, and warnings.

    Raises:
        InputError: No voxel is finite.
    """
    if array.dtype == np.int16:
        return array, []
    result = np.empty(array.shape, dtype=np.int16)
    # Slabs of slices, since intermediate copies are up to four times as large.
    bad = clipped = 0
    for start in range(0, len(array), _SLAB):
        piece = array[start : start + _SLAB]
        if np.issubdtype(array.dtype, np.floating):
            finite = np.isfinite(piece)
            bad += piece.size - int(finite.sum())
            piece = np.rint(np.where(finite, piece, AIR))
        inside = np.clip(piece, _LIMITS.min, _LIMITS.max)
        clipped += int(np.count_nonzero(inside != piece))
        result[start : start + _SLAB] = inside
    if bad == array.size:
        raise InputError(f"{name}: no voxel is a finite number; expected HU")
    warnings = [
        f"{number} voxels ({100 * number / array.size:.2g} %) {problem}"
        for number, problem in (
            (bad, "are NaN or infinite and became air"),
            (clipped, f"are not within {_LIMITS.min} to {_LIMITS.max} and became a limit"),
        )
        if number
    ]
    return result, warnings


def check_values(hu: np.ndarray, path: Path) -> list[str]:
    """Return warnings about values that are probably not HU.

    Raises:
        InputError: All voxels have the same value.
    """
    low, high = int(hu.min()), int(hu.max())
    if low == high:
        raise InputError(f"{path}: all voxels have the value {low}; expected a CT")
    if low > _DARKEST_EXPECTED:
        return [
            f"the values are {low} to {high}, without air (-1000); they may not be HU, or lack "
            "the rescale intercept"
        ]
    return []
