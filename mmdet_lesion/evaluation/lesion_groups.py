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

# The limits of the published DeepLesion tables (3DCE, MULAN).
_SIZES = (10.0, 30.0)
_INTERVAL = 2.5
# Fleischner Society, guidelines for incidental pulmonary nodules, 2017.
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
    """Sort distinct labels: sizes ascending, types by their number."""
    return sorted(set(labels), key=_ORDER.index)


def size_labels(millimeters: Iterable[float]) -> list[str]:
    """Below 10 mm, 10 to 30 mm, above."""
    return _three(millimeters, *_SIZES)


def nodule_size_labels(millimeters: Iterable[float]) -> list[str]:
    """Below 6 mm, 6 to 8 mm, above."""
    return _three(millimeters, *_NODULE_SIZES)


def _three(millimeters: Iterable[float], low: float, high: float) -> list[str]:
    names = _names(low, high)
    return [names[int(size >= low) + int(size > high)] for size in millimeters]


def interval_labels(millimeters: Iterable[float]) -> list[str]:
    """Up to 2.5 mm between slices, and above."""
    # Resampled spacings carry rounding; 2.5 mm is itself a common interval.
    return [_INTERVAL_NAMES[int(interval > _INTERVAL + 1e-3)] for interval in millimeters]


def type_labels(numbers: Iterable[int]) -> list[str]:
    """Names of DeepLesion's types; ``unknown`` for any other number."""
    return [LESION_TYPES.get(number, _UNKNOWN) for number in numbers]


def patients_of(names: Sequence[str], where: str) -> list[str]:
    """First part of DeepLesion's names ``{patient}_{study}_{series}...``.

    Args:
        names: Names of volumes or images, folders before them being left out.
        where: What the names are from, for the message.

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
                f"{where} holds the name {name!r}, which does not say whose scan it is; expected "
                "{patient}_{study}_{series}..."
            )
        patients.append(match["patient"])
    return patients


def longer_sides(
    boxes: Iterable[Sequence[float]], spacings: Iterable[Sequence[float]]
) -> list[float]:
    """Longer side in mm of inclusive boxes ``x1, y1, x2, y2`` with spacings ``x, y``."""
    return [
        float(max((x2 - x1 + 1) * sx, (y2 - y1 + 1) * sy))
        for (x1, y1, x2, y2), (sx, sy) in zip(boxes, spacings, strict=True)
    ]


def longer_diameters(
    measurements: Iterable[Sequence[float]], spacings: Iterable[Sequence[float]]
) -> list[float]:
    """Longer diameter in mm of RECIST measurements, four points ``x, y`` each."""
    sizes = []
    for points, spacing in zip(measurements, spacings, strict=True):
        ends = np.reshape(points, (2, 2, 2)) * np.asarray(spacing)
        sizes.append(float(np.linalg.norm(ends[:, 1] - ends[:, 0], axis=1).max()))
    return sizes
