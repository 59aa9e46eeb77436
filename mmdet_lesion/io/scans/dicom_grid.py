"""A stack of slices on a regular grid: gaps, mixed spacings and tilted gantries."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ...errors import InputError
from .dicom_header import SliceHeader

__all__ = ["SliceStack"]

#: Share of the slice distance by which positions may jitter and still be regular.
_JITTER = 0.05
#: Interpolating over more than this would invent anatomy.
_LARGEST_GAP = 30.0
#: Degrees; less than this shifts the last slice of a scan by a few pixels.
_SMALLEST_TILT = 0.3
#: mm by which slices may lie beside the line through all of them.
_SIDEWAYS = 1.0


@dataclass(frozen=True)
class SliceStack:
    """Sorted slices and the regular grid that they are put on.

    Args:
        headers: The slices, by position.
        spacing: ``(x, y, z)`` in mm of the grid.
        origin: World position of the grid's first voxel.
        direction: 3×3, row by row.
        lower: For every slice of the grid the slice at or before it.
        weight: For every slice of the grid the share of the slice after ``lower``, 0 … 1.
        warnings: What is irregular.
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
        """The file of every slice of the grid, None where it is interpolated."""
        return tuple(
            None if weight else self.headers[lower].path
            for lower, weight in zip(self.lower.tolist(), self.weight.tolist(), strict=True)
        )

    @classmethod
    def of(cls, headers: list[SliceHeader]) -> SliceStack:
        """Find the grid of slices that are sorted by position, one at each.

        Raises:
            InputError: Slices are missing over more than 30 mm.
        """
        first = headers[0]
        positions = np.array([header.position for header in headers])
        distance, lower, weight, warnings = _regular(headers, positions)
        step, found = _step(headers, positions)
        warnings += found
        direction = np.column_stack((first.orientation[:3], first.orientation[3:], step))
        # The step runs along the line of the slices: longer than their distance when tilted.
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
    """Distance of the grid's slices, and where each lies among the given ones."""
    count = len(positions)
    if count == 1:
        thickness = headers[0].thickness
        text = "the scan is a single slice"
        if thickness <= 0:
            text += " without a thickness; 1 mm was assumed"
        return thickness or 1.0, np.zeros(1, int), np.zeros(1), [text]
    gaps = np.diff(positions)
    usual = float(np.median(gaps))
    if (np.abs(gaps - usual) <= _JITTER * usual).all():
        return float(gaps.mean()), np.arange(count), np.zeros(count), []
    widest = int(np.argmax(gaps))
    if gaps[widest] > max(_LARGEST_GAP, 1.5 * usual):
        raise InputError(
            f"{headers[0].path.parent}: slices are missing over {gaps[widest]:.1f} mm between "
            f"{headers[widest].path.name} and {headers[widest + 1].path.name}; expected at most "
            f"{_LARGEST_GAP:g} mm"
        )
    steps = gaps / usual
    whole = np.abs(steps - np.rint(steps)) <= _JITTER * np.maximum(np.rint(steps), 1)
    if whole.all() and steps.min() > 0.5:
        distance = usual
        missing = int((np.rint(steps) - 1).sum())
        place = headers[int(np.argmax(steps > 1.5))].path.name
        text = (
            f"{missing} slices are missing, the first after {place}; they were interpolated, and "
            "slice numbers count them"
        )
    else:
        # The finer of mixed distances, unless a handful of slices alone have it.
        distance = float(np.percentile(gaps, 10))
        text = (
            f"the slices lie {gaps.min():.2f} to {gaps.max():.2f} mm apart; they were interpolated "
            f"to a regular {distance:.2f} mm, and slice numbers count those"
        )
    grid = np.arange(math.floor((positions[-1] - positions[0]) / distance + _JITTER) + 1)
    at = np.interp(positions[0] + grid * distance, positions, np.arange(count))
    nearest = np.rint(at)
    local = np.diff(positions, append=positions[-1] + distance)[
        np.minimum(at.astype(int), count - 1)
    ]
    # Where a slice lies next to a place of the grid, its own voxels serve.
    at = np.where(np.abs(at - nearest) * local <= 2 * _JITTER * distance, nearest, at)
    lower = np.floor(at).astype(int)
    return distance, lower, at - lower, [text]


def _step(headers: list[SliceHeader], positions: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """World vector from slice to slice for 1 mm along the normal."""
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
            f"the slices are shifted sideways by up to {sideways:.1f} mm; world positions are "
            "those of the mean line"
        )
    if angle <= _SMALLEST_TILT:
        return normal, warnings
    said = f", the header says {max(tilts, key=abs):g}°" if any(tilts) else ""
    warnings.append(
        f"the gantry was tilted by {angle:.1f}°{said}: the slices are shifted against each other; "
        "world positions account for it, shapes along z are sheared"
    )
    return drift / (drift @ normal), warnings
