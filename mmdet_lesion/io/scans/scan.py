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
_DARKEST_EXPECTED = -500
# A CT has thousands of different values, a label map a few hundred at most. Tiny scans have few of
# both, so each value must occur often on average.
_FEW_VALUES = 256
_VOXELS_PER_VALUE = 20
# Air to metal. The corners outside of the scanner's circular field of view, 21 % of a slice, may
# be padded with lower values.
_USUAL_RANGE = (-1100, 3100)
_USUAL_SHARE = 0.6
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


def check_values(hu: np.ndarray) -> list[str]:
    """Return what is unusual about the values of a CT scan.

    A CT contains air, mostly values that occur in the body, and more than a few different values;
    masks, label maps, PET, MR and scans without their rescale intercept do not.

    Args:
        hu: Voxels (D, H, W), int16.

    Returns:
        One sentence for each irregularity.
    """
    low, high = int(hu.min()), int(hu.max())
    found = []
    limit = min(_FEW_VALUES, hu.size // _VOXELS_PER_VALUE)
    values = _count_values(hu, limit)
    if values <= limit:
        found.append(
            f"the voxels have only {values} different values, {low} to {high}; it may be a mask or "
            "a label map"
        )
    if low > _DARKEST_EXPECTED:
        found.append(
            f"the values are {low} to {high}, without air (-1000); they may not be HU, or lack "
            "the rescale intercept"
        )
    usual = int(np.count_nonzero((hu >= _USUAL_RANGE[0]) & (hu <= _USUAL_RANGE[1])))
    if usual < _USUAL_SHARE * hu.size:
        found.append(
            f"{100 * usual / hu.size:.0f} % of the voxels are from {_USUAL_RANGE[0]} to "
            f"{_USUAL_RANGE[1]}, the range of a body; they may not be HU"
        )
    return found


def _count_values(hu: np.ndarray, limit: int) -> int:
    """Count different values slice by slice, until there are more than ``limit``."""
    seen = np.zeros(1 << 16, dtype=bool)
    for plane in hu:
        # Negative values are counted from the end.
        seen[plane] = True
        if (count := int(np.count_nonzero(seen))) > limit:
            break
    return count
