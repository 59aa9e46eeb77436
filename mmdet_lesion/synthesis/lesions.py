"""Synthesis of lesions of DeepLesion's eight types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..errors import InputError
from .canvas import Canvas, Tissue
from .config import PhantomConfig
from .recist import recist_axes

SOFT_TISSUE = 25.0
"""HU to which the contrast of a lesion in fat or lung is added."""


@dataclass(frozen=True)
class _Site:
    home: tuple[Tissue, ...]
    inside: float
    """Smallest fraction of the lesion that must lie in these tissues."""
    largest: float
    """Largest plausible diameter in mm."""
    weight: float
    """Relative frequency of the type where it fits; more balanced than in DeepLesion."""
    hypodense: bool
    """Whether lesions may be darker than the tissue around them."""


_SITES = {
    1: _Site((Tissue.BONE,), 0.5, 40.0, 6, True),
    2: _Site((Tissue.ABDOMEN,), 0.75, 60.0, 20, False),
    3: _Site((Tissue.MEDIASTINUM,), 0.55, 60.0, 16, False),
    4: _Site((Tissue.LIVER,), 0.9, 60.0, 14, True),
    5: _Site((Tissue.LUNG,), 0.7, 60.0, 24, False),
    6: _Site((Tissue.KIDNEY,), 0.5, 45.0, 7, True),
    7: _Site((Tissue.FAT, Tissue.MUSCLE), 0.95, 45.0, 8, True),
    8: _Site((Tissue.PELVIS,), 0.7, 60.0, 12, False),
}
_GRID = 128
"""Samples across a lesion when a section is measured."""


@dataclass(frozen=True)
class LesionShape:
    """An ellipsoid whose surface may be lobulated or spiculated.

    Attributes:
        radii: Semi-axes in mm.
        rotation: Matrix (3, 3) whose rows are the directions (x, y, z) of the semi-axes.
        waves: Wave vectors over the direction from the center, shape (n, 3).
        phases: Phases in radians, shape (n,).
        amplitude: Height of each wave relative to the radius.
        softness: Width of the blurred edge in mm.
    """

    radii: np.ndarray
    rotation: np.ndarray
    waves: np.ndarray
    phases: np.ndarray
    amplitude: float
    softness: float

    @classmethod
    def draw(cls, rng: np.random.Generator, diameter: float) -> LesionShape:
        """Draw a shape whose axial section through the center has the long axis ``diameter``."""
        radii = 0.5 * diameter * np.array([1.0, rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.1)])
        turn, tilt = rng.uniform(0, np.pi), rng.normal(scale=0.25)
        flat = np.array(
            [[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0], [0, 0, 1.0]]
        )
        lean = np.array(
            [[np.cos(tilt), 0, np.sin(tilt)], [0, 1, 0], [-np.sin(tilt), 0, np.cos(tilt)]]
        )
        kind = rng.choice(3, p=(0.4, 0.4, 0.2))
        amplitude, frequency = ((0.0, 1.0), (0.07, 2.6), (0.045, 6.0))[kind]
        shape = cls(
            radii,
            lean @ flat,
            rng.normal(scale=frequency, size=(5, 3)),
            rng.uniform(0, 2 * np.pi, 5),
            amplitude,
            float(rng.uniform(0.3, 2.0) * min(1.0, diameter / 15)),
        )
        # The waves change the size, so rescale the central section to the diameter.
        axes = shape.section(0.0)
        assert axes is not None
        factor = diameter / np.linalg.norm(axes[1] - axes[0])
        return replace(shape, radii=radii * factor)

    @property
    def reach(self) -> float:
        """Radius in mm of a sphere that contains the lesion."""
        return float(self.radii.max() * (1 + len(self.phases) * self.amplitude))

    def distance(self, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        """Approximate the signed distance from the surface in mm at offsets from the center."""
        offsets = np.broadcast_arrays(x, y, z)
        local = [
            sum(np.float32(self.rotation[i, j] / self.radii[i]) * offsets[j] for j in range(3))
            for i in range(3)
        ]
        unit = np.sqrt(local[0] ** 2 + local[1] ** 2 + local[2] ** 2) + np.float32(1e-4)
        edge = np.float32(1.0)
        if self.amplitude:
            for wave, phase in zip(self.waves, self.phases):
                angle = sum(np.float32(wave[i]) * local[i] for i in range(3)) / unit
                edge = edge + np.float32(self.amplitude) * np.sin(angle + np.float32(phase))
        return (unit - edge) * np.float32(self.radii.min())

    def section(self, z: float) -> np.ndarray | None:
        """Measure the RECIST axes of the section at ``z`` mm from the center.

        The section is sampled on a finer grid than the image, so that small lesions are measured
        accurately.

        Returns:
            End points (x, y) in mm from the center in the order of :func:`recist_axes`, shape
            (4, 2), or None if the section is empty.
        """
        at = np.linspace(-self.reach, self.reach, _GRID, dtype=np.float32)
        mask = self.distance(at[None, :], at[:, None], np.float32(z)) <= 0
        axes = recist_axes(mask)
        return None if axes is None else (axes * (at[1] - at[0]) - self.reach).astype(np.float64)


@dataclass(frozen=True)
class Lesion:
    """A lesion in a volume.

    Attributes:
        lesion_type: DeepLesion's coarse type, 1–8.
        shape: Shape of the lesion.
        center: Center (x, y, z) in mm in the coordinates of :class:`Canvas`.
        key_slice: Index (from 0) of the slice nearest to the center.
        hu: HU of the lesion.
        sections: RECIST end points (x, y) for every slice where the lesion is visible, by slice
            index; each of shape (4, 2), in pixels of the array with pixel centers at integers.
    """

    lesion_type: int
    shape: LesionShape
    center: np.ndarray
    key_slice: int
    hu: float
    sections: dict[int, np.ndarray] = field(repr=False)


def place_lesions(canvas: Canvas, config: PhantomConfig, rng: np.random.Generator) -> list[Lesion]:
    """Place and paint lesions in tissue that fits their types.

    Args:
        canvas: Canvas with a painted body.
        config: Settings, of which number, types, diameters and contrast are used.
        rng: Random generator of the volume.

    Returns:
        The lesions, at least one; fewer than drawn if they do not fit.

    Raises:
        InputError: No lesion of the configured types and diameters fits into this part of the
            body.
    """
    # Subsample the candidate voxels, but finely enough for thin structures.
    step = max(1, canvas.labels.shape[1] // 128)
    coarse = canvas.labels[:, ::step, ::step]
    homes = {
        kind: _voxels(coarse, _SITES[kind].home) * (1, step, step) for kind in config.lesion_types
    }
    homes = {kind: voxels for kind, voxels in homes.items() if len(voxels) >= 20}
    wanted = int(rng.integers(config.lesions[0], config.lesions[1] + 1))
    lesions: list[Lesion] = []
    attempts = 0
    while homes and len(lesions) < wanted and attempts < 12 * wanted:
        attempts += 1
        kinds = sorted(homes)
        weights = np.array([_SITES[kind].weight for kind in kinds], float)
        kind = int(rng.choice(kinds, p=weights / weights.sum()))
        # Some lesions share the key slice of another one.
        level = None
        if lesions and rng.random() < 0.2:
            level = lesions[int(rng.integers(len(lesions)))].key_slice
        lesion = _place(canvas, config, rng, kind, homes[kind], level, lesions)
        if lesion is not None:
            lesions.append(lesion)
            paint_shape(canvas, lesion.shape, lesion.center, lesion.hu)
    if not lesions:
        raise InputError(
            f"no lesion of types {config.lesion_types} and diameter {config.diameter} mm fits into "
            f"the part of the body from {canvas.z_mm[0]:.0f} to {canvas.z_mm[-1]:.0f} mm"
        )
    return lesions


def _voxels(labels: np.ndarray, tissues: tuple[Tissue, ...]) -> np.ndarray:
    wanted = np.zeros(256, bool)
    wanted[list(tissues)] = True
    return np.argwhere(wanted[labels])


def _place(canvas, config, rng, kind, voxels, level, others) -> Lesion | None:
    site = _SITES[kind]
    low, high = config.diameter
    high = max(low, min(high, site.largest))
    diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
    if level is not None:
        voxels = voxels[voxels[:, 0] == level]
        if not len(voxels):
            return None
    ball = _ball(rng, 160)
    for attempt in range(40):
        if attempt % 10 == 0:
            shape = LesionShape.draw(rng, diameter)
            diameter = max(low, 0.75 * diameter)
        z, y, x = voxels[rng.integers(len(voxels))]
        # Keep the center near the key slice, so that a small lesion is not between two slices.
        slip = rng.uniform(-0.3, 0.3) * min(canvas.spacing[2], shape.radii[2])
        center = np.array([canvas.x_mm[x], canvas.y_mm[y], canvas.z_mm[z] + slip])
        if any(
            np.linalg.norm(center - other.center) < shape.reach + other.shape.reach + 3.0
            for other in others
        ):
            continue
        points = center + (ball * shape.radii) @ shape.rotation
        index = np.rint(
            (points - (canvas.x_mm[0], canvas.y_mm[0], canvas.z_mm[0])) / canvas.spacing
        )
        index = index.astype(int)[:, ::-1]
        index = index[((index >= 0) & (index < canvas.labels.shape)).all(1)]
        labels = canvas.labels[tuple(index.T)]
        at_home = np.isin(labels, site.home)
        if at_home.mean() >= site.inside and not (labels == Tissue.AIR).any():
            around = float(np.median(canvas.hu[tuple(index[at_home].T)]))
            hu = _gray_value(config, rng, kind, around)
            return _measure(canvas, kind, shape, center, int(z), hu)
    return None


def _ball(rng: np.random.Generator, count: int) -> np.ndarray:
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return directions * rng.uniform(0, 1, (count, 1)) ** (1 / 3)


def _gray_value(config, rng, kind: int, around: float) -> float:
    contrast = float(rng.uniform(*config.contrast))
    dark, subsolid = rng.random(2)
    if around > 0 and _SITES[kind].hypodense and dark < config.hypodense:
        return around - contrast
    if kind == 5 and subsolid < config.subsolid:
        return around + 150.0 + 2.0 * contrast
    return max(around, SOFT_TISSUE) + contrast


def _measure(canvas, kind, shape, center, key_slice, hu) -> Lesion:
    pixels = np.array(canvas.spacing[:2])
    origin = np.array([canvas.x_mm[0], canvas.y_mm[0]])
    reach = np.flatnonzero(np.abs(canvas.z_mm - center[2]) <= shape.reach)
    sections = {}
    for index in reach:
        axes = shape.section(float(canvas.z_mm[index] - center[2]))
        if axes is None:
            continue
        ends = (axes + center[:2] - origin) / pixels
        # Sections smaller than a pixel are not visible.
        if index == key_slice or np.linalg.norm(ends[1] - ends[0]) >= 1.0:
            sections[int(index)] = ends
    return Lesion(kind, shape, center, key_slice, hu, sections)


def paint_shape(
    canvas: Canvas,
    shape: LesionShape,
    center: np.ndarray,
    hu: float,
    tissue: Tissue | None = Tissue.LESION,
    within: Sequence[Tissue] = (),
) -> None:
    """Paint a shape at a center (x, y, z) in mm in the coordinates of :class:`Canvas`."""
    reach = shape.reach + shape.softness + canvas.spacing[0]
    ranges = []
    for axis, middle in zip((canvas.z_mm, canvas.y_mm, canvas.x_mm), center[::-1], strict=True):
        start, stop = np.searchsorted(axis, (middle - reach, middle + reach))
        ranges.append(slice(int(start), int(stop)))
    in_z, in_y, in_x = ranges
    where = in_z, in_y, in_x
    offsets = [
        (axis[part] - middle).astype(np.float32)
        for axis, part, middle in zip(
            (canvas.x_mm, canvas.y_mm, canvas.z_mm), where[::-1], center, strict=True
        )
    ]
    distance = shape.distance(
        offsets[0][None, None, :], offsets[1][None, :, None], offsets[2][:, None, None]
    )
    canvas.blend(where, distance, hu, tissue, within, softness=shape.softness)
