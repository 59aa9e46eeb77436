"""Rendering of soft-edged shapes into a CT volume."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import IntEnum

import numpy as np
from scipy.interpolate import PchipInterpolator

Curve = float | Callable[[np.ndarray], np.ndarray]
"""A constant or a function of z."""


class Tissue(IntEnum):
    """Tissue of a voxel, which determines its texture and the lesions it may contain."""

    AIR = 0
    TABLE = 1
    FAT = 2
    MUSCLE = 3
    MEDIASTINUM = 4
    ABDOMEN = 5
    PELVIS = 6
    LUNG = 7
    AIRWAY = 8
    BOWEL = 9
    LIVER = 10
    SPLEEN = 11
    KIDNEY = 12
    HEART = 13
    VESSEL = 14
    BONE = 15
    CORTEX = 16
    FLUID = 17
    LESION = 18


CAVITY = (Tissue.MEDIASTINUM, Tissue.ABDOMEN, Tissue.PELVIS)
"""Tissues of the body cavities, which organs may replace."""


def curve(
    z: Sequence[float] | np.ndarray, values: Sequence[float] | np.ndarray
) -> Callable[[np.ndarray], np.ndarray]:
    """Return a monotone interpolation through ``values`` at ``z``, constant outside."""
    interpolate = PchipInterpolator(z, values)
    return lambda at: interpolate(np.clip(at, z[0], z[-1]))


class Canvas:
    """Volume in HU with the coordinates of a standard patient.

    Shapes are specified in nominal mm of the standard patient (x to the patient's left, which is
    the right of the image, y backwards, z towards the feet). The actual patient differs by a scale
    for each axis and a smooth in-plane warp.

    Args:
        shape: Shape (D, H, W).
        spacing: Spacing (x, y, z) in mm.
        top: Position of the first slice below the shoulders in mm.
        scale: Actual divided by nominal size, (x, y, z).
        warp: Parameters of the warp, shape (2, 2, 4): for each of x and y two waves with amplitude
            (mm), wavelength in plane (mm), wavelength in z (mm) and phase (radians).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        spacing: tuple[float, float, float],
        top: float,
        scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
        warp: np.ndarray | None = None,
    ) -> None:
        depth, height, width = shape
        self.spacing = spacing
        self.scale = scale
        self.x_mm = (np.arange(width) - (width - 1) / 2) * spacing[0]
        self.y_mm = (np.arange(height) - (height - 1) / 2) * spacing[1]
        self.z_mm = top + np.arange(depth) * spacing[2]
        x, y, z = (
            (axis / factor).astype(np.float32)
            for axis, factor in zip((self.x_mm, self.y_mm, self.z_mm), scale)
        )
        self.x, self.y, self.z = x, y, z
        warp = np.zeros((2, 2, 4)) if warp is None else warp
        self.reach = float(np.abs(warp[..., 0]).sum(1).max())
        waves = [
            [_wave(across, z, warp[axis, which]) for which, across in enumerate((x, y))]
            for axis in range(2)
        ]
        self.warped_x = x[None, None, :] + waves[0][0][:, None, :] + waves[0][1][:, :, None]
        self.warped_y = y[None, :, None] + waves[1][0][:, None, :] + waves[1][1][:, :, None]
        self.hu = np.full(shape, -1000.0, np.float32)
        self.labels = np.zeros(shape, np.uint8)
        self.pixel = float(spacing[0] / min(scale[:2]))

    def region(
        self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float]
    ) -> tuple[slice, slice, slice] | None:
        """Return the indices that contain a nominal box after the warp; None if it is outside."""
        margin = self.reach + self.pixel
        ranges = []
        for axis, (low, high), more in ((self.z, z, 0.0), (self.y, y, margin), (self.x, x, margin)):
            start, stop = np.searchsorted(axis, (low - more, high + more))
            if start >= stop:
                return None
            ranges.append(slice(int(start), int(stop)))
        in_z, in_y, in_x = ranges
        return in_z, in_y, in_x

    def blend(
        self,
        where: tuple[slice, slice, slice],
        distance: np.ndarray,
        hu: float | np.ndarray,
        tissue: Tissue | None,
        within: Sequence[Tissue] = (),
        softness: float = 0.0,
    ) -> None:
        """Blend ``hu`` into a region where the signed ``distance`` (nominal mm) is negative.

        The edge is one pixel wide, or ``softness`` mm if that is more; the label changes where the
        coverage exceeds one half. ``within`` restricts both to the given tissues.
        """
        cover = np.clip(0.5 - distance / max(self.pixel, softness), 0.0, 1.0)
        labels = self.labels[where]
        if within:
            allowed = np.zeros(len(Tissue), bool)
            allowed[list(within)] = True
            cover *= allowed[labels]
        image = self.hu[where]
        image += cover * (hu - image)
        if tissue is not None:
            labels[cover > 0.5] = tissue

    def stack(
        self,
        z: tuple[float, float],
        cx: Curve,
        cy: Curve,
        rx: Curve,
        ry: Curve,
        hu: float,
        tissue: Tissue | None,
        *,
        power: float = 2.0,
        within: Sequence[Tissue] = (),
        below: Curve | None = None,
    ) -> None:
        """Paint an ellipse on every slice of a z range; center and radii are curves over z.

        A ``power`` above 2 gives a superellipse. ``below`` keeps the part in front of that y (an
        air-fluid level).
        """
        levels = self.z[(self.z >= z[0]) & (self.z < z[1])]
        if not len(levels):
            return
        x, y, a, b = (_along(value, levels) for value in (cx, cy, rx, ry))
        a, b = np.maximum(a, 1e-3), np.maximum(b, 1e-3)
        where = self.region(
            (float((x - a).min()), float((x + a).max())),
            (float((y - b).min()), float((y + b).max())),
            (float(levels[0]), float(np.nextafter(levels[-1], np.float32(np.inf)))),
        )
        if where is None:
            return
        dx = np.abs(self.warped_x[where] - x)
        dy = self.warped_y[where] - y
        distance = _radial(dx, np.abs(dy), a, b, power)
        if below is not None:
            distance = np.maximum(distance, dy + y - _along(below, levels))
        self.blend(where, distance, hu, tissue, within)

    def ellipsoid(
        self,
        center: Sequence[float] | np.ndarray,
        radii: Sequence[float] | np.ndarray,
        hu: float,
        tissue: Tissue | None,
        *,
        within: Sequence[Tissue] = (),
        below: float | None = None,
    ) -> None:
        """Paint an ellipsoid with axes along x, y and z; ``below`` as in :meth:`stack`."""
        where = self.region(*((c - r, c + r) for c, r in zip(center, radii)))
        if where is None:
            return
        dx = self.warped_x[where] - np.float32(center[0])
        dy = self.warped_y[where] - np.float32(center[1])
        dz = (self.z[where[0]] - np.float32(center[2]))[:, None, None]
        unit = np.sqrt((dx / radii[0]) ** 2 + (dy / radii[1]) ** 2 + (dz / radii[2]) ** 2)
        length = np.sqrt(dx**2 + dy**2 + dz**2) + np.float32(1e-3)
        # The distance is measured along the ray from the center.
        distance = length - length / np.maximum(unit, 1e-6)
        if below is not None:
            distance = np.maximum(distance, dy + np.float32(center[1] - below))
        self.blend(where, distance, hu, tissue, within)

    def capsule(
        self,
        start: Sequence[float],
        stop: Sequence[float],
        radius: float,
        hu: float,
        tissue: Tissue | None,
        *,
        within: Sequence[Tissue] = (),
    ) -> None:
        """Paint a straight rod with round ends from ``start`` to ``stop`` (x, y, z)."""
        where = self.region(
            *((min(a, b) - radius, max(a, b) + radius) for a, b in zip(start, stop))
        )
        if where is None:
            return
        axis = np.subtract(stop, start).astype(np.float32)
        dx = self.warped_x[where] - np.float32(start[0])
        dy = self.warped_y[where] - np.float32(start[1])
        dz = (self.z[where[0]] - np.float32(start[2]))[:, None, None]
        along = dx * axis[0] + dy * axis[1] + dz * axis[2]
        along = np.clip(along / max(float(axis @ axis), 1e-6), 0.0, 1.0)
        square = (dx - along * axis[0]) ** 2 + (dy - along * axis[1]) ** 2
        square += (dz - along * axis[2]) ** 2
        self.blend(where, np.sqrt(square) - np.float32(radius), hu, tissue, within)

    def rods(
        self,
        points: np.ndarray,
        radius: float,
        hu: float,
        tissue: Tissue | None,
        *,
        within: Sequence[Tissue] = (),
    ) -> None:
        """Paint a chain of capsules through ``points`` (N, 3)."""
        for start, stop in zip(points[:-1], points[1:]):
            self.capsule(start, stop, radius, hu, tissue, within=within)


def _wave(across: np.ndarray, z: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    amplitude, in_plane, in_z, phase = (float(value) for value in parameters)
    if amplitude == 0:
        return np.zeros((len(z), len(across)), np.float32)
    angle = 2 * np.pi * (across[None, :] / in_plane + z[:, None] / in_z) + phase
    return (amplitude * np.sin(angle)).astype(np.float32)


def _along(value: Curve, z: np.ndarray) -> np.ndarray:
    values = value(z) if callable(value) else np.full(len(z), value)
    return np.asarray(values, np.float32)[:, None, None]


def _radial(
    dx: np.ndarray, dy: np.ndarray, rx: np.ndarray, ry: np.ndarray, power: float
) -> np.ndarray:
    if power == 2.0:
        unit = np.sqrt((dx / rx) ** 2 + (dy / ry) ** 2)
    else:
        unit = ((dx / rx) ** power + (dy / ry) ** power) ** (1.0 / power)
    length = np.sqrt(dx**2 + dy**2) + np.float32(1e-3)
    return length - length / np.maximum(unit, 1e-6)
