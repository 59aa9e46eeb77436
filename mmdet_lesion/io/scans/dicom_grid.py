"""Regular grid of DICOM slices with gaps, mixed spacings or a tilted gantry."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dicom_header import SliceHeader

__all__ = ["SliceStack"]

# Deviation of positions that counts as regular, as a fraction of the slice distance.
_JITTER = 0.05
# Largest gap in mm that is interpolated; anatomy in larger gaps is unknown.
_LARGEST_GAP = 30.0
# Smallest tilt in degrees that is corrected; a smaller one shifts slices by a few pixels.
_SMALLEST_TILT = 0.3
# Largest distance in mm between the origin of a slice and the regression line of all origins.
_SIDEWAYS = 1.0


@dataclass(frozen=True)
class SliceStack:
    """Sorted slices and their regular grid.

    Args:
        headers: The slices, sorted by position.
        spacing: Spacing of the grid ``(x, y, z)`` in mm.
        origin: World position of the first voxel in mm.
        direction: 3×3 matrix in row-major order.
        lower: Index of the slice at or before each slice of the grid, shape (D,).
        weight: Weight of the slice after ``lower`` for each slice of the grid, 0 … 1, shape (D,).
        warnings: Irregularities.
    """

    headers: tuple[SliceHeader, ...]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    lower: np.ndarray
    weight: np.ndarray
    warnings: list[str] = field(default_factory=list)

    @property
    def files(self) -> tuple[Path | None, ...]:
        """File of each slice of the grid, or None for interpolated slices."""
        return tuple(header.path if header else None for header in self._own_headers())

    @property
    def instances(self) -> tuple[int | None, ...]:
        """Instance number of each slice of the grid, or None if it is interpolated or has none."""
        return tuple((header and header.instance) or None for header in self._own_headers())

    def _own_headers(self) -> list[SliceHeader | None]:
        """Return the header of each slice of the grid, or None for interpolated slices."""
        return [
            None if weight else self.headers[lower]
            for lower, weight in zip(self.lower.tolist(), self.weight.tolist(), strict=True)
        ]

    @classmethod
    def of(cls, headers: list[SliceHeader]) -> SliceStack:
        """Find the grid of slices with unique, sorted positions.

        Raises:
            InputError: A gap exceeds 30 mm.
        """
        first = headers[0]
        positions = np.array([header.position for header in headers])
        distance, lower, weight, warnings = _regular(headers, positions)
        step, found = _step(headers, positions)
        warnings += found
        direction = np.column_stack((first.orientation[:3], first.orientation[3:], step))
        # The step follows the origins of the slices and exceeds their distance if they are tilted.
        stretch = np.linalg.norm(step)
        direction[:, 2] /= stretch
        return cls(
            tuple(headers),
            (*first.spacing, float(distance * stretch)),
            first.origin,
            tuple(direction.ravel().tolist()),
            lower,
            weight,
            warnings,
        )


def _regular(
    headers: list[SliceHeader], positions: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray, list[str]]:
    """Return the slice distance, ``lower``, ``weight`` and warnings of the grid."""
    count = len(positions)
    if count == 1:
        thickness = headers[0].thickness
        text = "the scan is a single slice"
        if thickness <= 0:
            text += " without a thickness; 1 mm is assumed"
        return thickness or 1.0, np.zeros(1, int), np.zeros(1), [text]
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if (np.abs(gaps - usual) <= _JITTER * usual).all():
        return float(gaps.mean()), np.arange(count), np.zeros(count), []
    widest = int(np.argmax(gaps))
    if gaps[widest] > max(_LARGEST_GAP, 1.5 * usual):
        raise InputError(
            f"{headers[0].path.parent} has a gap of {gaps[widest]:.1f} mm between "
            f"{headers[widest].path.name} and {headers[widest + 1].path.name}; expected up to "
            f"{_LARGEST_GAP:g} mm"
        )
    steps = gaps / usual
    whole = np.abs(steps - np.rint(steps)) <= _JITTER * np.maximum(np.rint(steps), 1)
    if whole.all() and steps.min() > 0.5:
        distance = usual
        missing = int((np.rint(steps) - 1).sum())
        place = headers[int(np.argmax(steps > 1.5))].path.name
        text = (
            f"{missing} slices are missing, the first after {place}; they are interpolated and "
            "counted in slice numbers"
        )
    else:
        # The smallest of mixed distances, unless only few slices have it.
        distance = float(np.percentile(gaps, 10))
        text = (
            f"the slices are {gaps.min():.2f} to {gaps.max():.2f} mm apart; they are interpolated "
            f"to a regular distance of {distance:.2f} mm, and slice numbers refer to the result"
        )
    grid = np.arange(math.floor((positions[-1] - positions[0]) / distance + _JITTER) + 1)
    at = np.interp(positions[0] + grid * distance, positions, np.arange(count))
    nearest = np.rint(at)
    local = np.diff(positions, append=positions[-1] + distance)[
        np.minimum(at.astype(int), count - 1)
    ]
    # Slices close to a position of the grid are used without interpolation.
    at = np.where(np.abs(at - nearest) * local <= 2 * _JITTER * distance, nearest, at)
    lower = np.floor(at).astype(int)
    return distance, lower, at - lower, [text]


def _step(headers: list[SliceHeader], positions: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Return the world vector between slices per mm along the normal, and warnings."""
    normal = headers[0].normal
    normal = normal / np.linalg.norm(normal)
    tilts = {round(header.tilt, 1) for header in headers}
    if len(headers) == 1:
        return normal, []
    origins = np.array([header.origin for header in headers])
    along = positions - positions.mean()
    drift = (along @ (origins - origins.mean(axis=0))) / (along @ along)
    expected = origins.mean(axis=0) + np.outer(along, drift)
    sideways = np.linalg.norm(origins - expected, axis=1).max()
    sheared = drift - normal * (drift @ normal)
    angle = math.degrees(math.atan(np.linalg.norm(sheared)))
    warnings = []
    if sideways > _SIDEWAYS:
        warnings.append(
            f"the slices are shifted sideways by up to {sideways:.1f} mm; world positions follow "
            "their regression line"
        )
    if angle <= _SMALLEST_TILT:
        return normal, warnings
    stated = f" ({max(tilts, key=abs):g}° in the header)" if any(tilts) else ""
    warnings.append(
        f"the gantry was tilted by {angle:.1f}°{stated}; world positions account for it, but "
        "shapes along z are sheared"
    )
    return drift / (drift @ normal), warnings
