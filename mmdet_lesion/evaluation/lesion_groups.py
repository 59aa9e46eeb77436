"""Groups of lesions by size, type and slice interval, and of scans by patient."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from ..errors import InputError
from ..io import LESION_TYPES

__all__ = [
    "in_order",
    "interval_labels",
    "longer_diameters",
    "longer_sides",
    "nodule_size_labels",
    "patients_of",
    "size_labels",
    "type_labels",
]

# Limits of the published DeepLesion tables (3DCE, MULAN).
_SIZES = (10.0, 30.0)
_INTERVAL = 2.5
# Limits of the Fleischner Society's guidelines for incidental pulmonary nodules, 2017.
_NODULE_SIZES = (6.0, 8.0)
_INTERVAL_NAMES = (f"<= {_INTERVAL:g} mm", f"> {_INTERVAL:g} mm")
_UNKNOWN = "unknown"
_VOLUME_NAME = re.compile(r"(?P<patient>\d+)_\d+_\d+(?:_.*)?")


def _names(low: float, high: float) -> tuple[str, str, str]:
    return f"< {low:g} mm", f"{low:g}-{high:g} mm", f"> {high:g} mm"


_ORDER = (
    *_names(*_SIZES),
    *_names(*_NODULE_SIZES),
    *_INTERVAL_NAMES,
    *LESION_TYPES.values(),
    _UNKNOWN,
)


def in_order(labels: Iterable[str]) -> list[str]:
    """Return the distinct labels in order: sizes ascending, types by number."""
    return sorted(set(labels), key=_ORDER.index)


def size_labels(millimeters: Iterable[float]) -> list[str]:
    """Label sizes as below 10 mm, 10 to 30 mm, or above 30 mm."""
    return _three(millimeters, *_SIZES)


def nodule_size_labels(millimeters: Iterable[float]) -> list[str]:
    """Label sizes as below 6 mm, 6 to 8 mm, or above 8 mm."""
    return _three(millimeters, *_NODULE_SIZES)


def _three(millimeters: Iterable[float], low: float, high: float) -> list[str]:
    names = _names(low, high)
    return [names[int(size >= low) + int(size > high)] for size in millimeters]


def interval_labels(millimeters: Iterable[float]) -> list[str]:
    """Label slice intervals as up to 2.5 mm or above."""
    # 2.5 mm is a common interval, and resampled spacings have rounding errors.
    return [_INTERVAL_NAMES[int(interval > _INTERVAL + 1e-3)] for interval in millimeters]


def type_labels(numbers: Iterable[int]) -> list[str]:
    """Return the names of DeepLesion's types, ``unknown`` for any other number."""
    return [LESION_TYPES.get(number, _UNKNOWN) for number in numbers]


def patients_of(names: Sequence[str], where: str) -> list[str]:
    """Extract the patients from DeepLesion's names ``{patient}_{study}_{series}...``.

    Args:
        names: Names of volumes or images, with or without folders.
        where: File of the names for messages.

    Raises:
        InputError: A name has another form.
    """
    patients = []
    for name in names:
        # Slices are named 000001_01_01_109.png or 000001_01_01/109.png.
        matches = (_VOLUME_NAME.fullmatch(part) for part in reversed(str(name).split("/")))
        match = next((match for match in matches if match), None)
        if match is None:
            raise InputError(
                f"{where} contains the name {name!r}, which does not name a patient; expected "
                "{patient}_{study}_{series}..."
            )
        patients.append(match["patient"])
    return patients


def longer_sides(
    boxes: Iterable[Sequence[float]], spacings: Iterable[Sequence[float]]
) -> list[float]:
    """Compute the longer sides in mm of inclusive boxes xyxy, given their spacings (x, y) in mm."""
    return [
        float(max((x2 - x1 + 1) * sx, (y2 - y1 + 1) * sy))
        for (x1, y1, x2, y2), (sx, sy) in zip(boxes, spacings, strict=True)
    ]


def longer_diameters(
    measurements: Iterable[Sequence[float]], spacings: Iterable[Sequence[float]]
) -> list[float]:
    """Compute the longer diameters in mm of RECIST measurements of four points (x, y)."""
    sizes = []
    for points, spacing in zip(measurements, spacings, strict=True):
        ends = np.reshape(points, (2, 2, 2)) * np.asarray(spacing)
        sizes.append(float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).max()))
    return sizes
