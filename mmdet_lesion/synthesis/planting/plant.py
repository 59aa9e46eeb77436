"""Planting of lesions into a scan."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from scipy import ndimage

from ...errors import InputError
from ...structures import Geometry, Volume
from ..recist import recist_axes
from .appearance import (
    SHIFTED,
    Appearance,
    draw_appearance,
    level_within,
    merge,
    shift,
    smooth_field,
)
from .noise import NoiseModel, borrow_noise, estimate_noise, noise_ratio
from .point_spread import estimate_point_spread
from .rendering import RenderedShape, random_rotation, render_shape
from .shapes import LesionShape
from .sites import draw_site
from .tissue import LUNG, TISSUES, TissueMap, close_lung, find_tissue

__all__ = [
    "Background",
    "PlantedLesion",
    "PlantedScan",
    "PlantingSettings",
    "Shapes",
    "plant_lesion",
    "plant_lesions",
    "study_background",
]

# Shapes that are tried for a lesion before it is given up.
_TRIES = 12
# Share of a lesion that lies in its tissue; the rest is cut off at the pleura, or is part of
# neighboring tissue.
_SHARE = {LUNG: 0.8}
_OTHER_SHARE = 0.85
# Lesions of which no voxel holds this fraction are invisible.
_LEAST_FRACTION = 0.3
# A lesion in lung reaches this far into the partial volume of the pleura, in mm.
_PLEURA = 1.0


class Shapes(Protocol):
    """A library of shapes."""

    def draw(
        self, rng: np.random.Generator, diameter: Sequence[float], scale: float
    ) -> tuple[LesionShape, float]:
        """Draw a shape and a scale such that the scaled diameter in mm is in a range."""


@dataclass(frozen=True)
class PlantingSettings:
    """Settings of planted lesions; ranges are (lowest, highest).

    Args:
        lesions: Number of lesions in a scan.
        diameter: Diameter in mm of a sphere of the same volume.
        scale: Shapes are scaled by up to this fraction of their size.
        tissues: Tissues to plant into, of :data:`.tissue.TISSUES`.
        subsolid: Fraction of ground-glass and part-solid nodules in lung, in equal parts.
        hypodense: Fraction of hypodense lesions in soft tissue.
        contrast: Absolute contrast in HU in soft tissue.
        visibility: Least contrast in soft tissue, in standard deviations of the noise of the mean
            over the largest section as if its pixels were independent. With 12, lesions are just
            visible; smaller values plant lesions that nobody can see.
        distance: Least distance in mm between spheres around two lesions.
        texture: Whether lesions whose texture is known have it, instead of a drawn appearance.

    Raises:
        InputError: A setting is out of range.
    """

    lesions: tuple[int, int] = (1, 4)
    diameter: tuple[float, float] = (4.0, 30.0)
    scale: float = 0.2
    tissues: tuple[str, ...] = TISSUES
    subsolid: float = 0.25
    hypodense: float = 0.6
    contrast: tuple[float, float] = (15.0, 80.0)
    visibility: float = 12.0
    distance: float = 5.0
    texture: bool = True

    def __post_init__(self) -> None:
        for name, least in (("lesions", 0), ("diameter", 1.0), ("contrast", 0.0)):
            low, high = getattr(self, name)
            if not least <= low <= high < math.inf:
                raise InputError(
                    f"{name} is {low:g} and {high:g}; expected {least:g} <= lowest <= highest"
                )
        for name in ("subsolid", "hypodense"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; expected a fraction in [0, 1]")
        if not 0 <= self.scale < 1:
            raise InputError(f"scale is {self.scale}; expected a fraction from 0 to below 1")
        for name in ("distance", "visibility"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}; expected 0 or more")
        if not self.tissues or not set(self.tissues) <= set(TISSUES):
            raise InputError(
                f"tissues is {self.tissues}; expected some of {', '.join(map(repr, TISSUES))}"
            )


@dataclass(frozen=True)
class Background:
    """What is measured of a scan before lesions are planted.

    Args:
        tissue: Where lung and soft tissue are.
        point_spread: Standard deviation of the blur along (z, y, x) in voxels.
        noise: Noise in soft tissue.
    """

    tissue: TissueMap
    point_spread: tuple[float, float, float]
    noise: NoiseModel


@dataclass(frozen=True)
class PlantedLesion:
    """A planted lesion.

    Args:
        number: Number in the scan, from 1.
        tissue: The tissue around it.
        appearance: Its HU.
        shape: Name of its shape.
        start: First voxel (z, y, x) of ``mask``; may be outside of the volume.
        mask: Voxels that are at least half in the lesion, in the smallest box around it, bool.
        geometry: Geometry of the volume.
        contrast: Mean HU of the lesion minus that of the same voxels before.
    """

    number: int
    tissue: str
    appearance: Appearance
    shape: str
    start: tuple[int, int, int]
    mask: np.ndarray
    geometry: Geometry
    contrast: float

    @property
    def box(self) -> np.ndarray:
        """Box ``(x1, y1, z1, x2, y2, z2)`` in voxels, half-open, shape (6,)."""
        low = np.array(self.start[::-1], dtype=np.float64)
        return np.concatenate((low, low + self.mask.shape[::-1]))

    @property
    def center(self) -> np.ndarray:
        """World position of the center of the box in mm, shape (3,)."""
        return self.geometry.centers_to_world(self.box)[0]

    @property
    def diameter(self) -> float:
        """Diameter in mm of a sphere of the same volume."""
        volume = float(np.count_nonzero(self.mask)) * math.prod(self.geometry.spacing)
        return (6 * volume / math.pi) ** (1 / 3)

    @property
    def key_slice(self) -> int:
        """Slice with the longest RECIST diameter."""
        lengths = {
            z: -1.0 if ends is None else float(np.linalg.norm(ends[0] - ends[1]))
            for z, (_, ends) in self.sections().items()
        }
        return max(lengths, key=lambda z: lengths[z])

    @property
    def radius(self) -> float:
        """Radius in mm of the sphere around the box."""
        return float(np.linalg.norm(np.multiply(self.mask.shape[::-1], self.geometry.spacing)) / 2)

    def sections(self) -> dict[int, tuple[tuple[int, int, int, int], np.ndarray | None]]:
        """Measure the lesion on its slices.

        Returns:
            For each slice the box ``(x1, y1, x2, y2)`` of its pixels, half-open, and the ends
            (x, y) of the long, then of the short RECIST diameter in pixels with centers at
            integers, shape (4, 2), or None if the section is too small to be measured.
        """
        z, y, x = self.start
        result = {}
        for index, plane in enumerate(self.mask):
            rows, columns = (np.flatnonzero(plane.any(axis=axis)) for axis in (1, 0))
            if len(rows):
                box = (x + columns[0], y + rows[0], x + columns[-1] + 1, y + rows[-1] + 1)
                ends = recist_axes(plane)
                ends = None if ends is None else ends + (x, y)
                result[z + index] = ((int(box[0]), int(box[1]), int(box[2]), int(box[3])), ends)
        return result


@dataclass
class PlantedScan:
    """A scan with planted lesions.

    Args:
        volume: HU with the lesions, of the dtype of the scan.
        lesions: The lesions, numbered from 1.
        wanted: Number of lesions that were drawn; fewer were planted if there was no room.
        background: What was measured of the scan.
    """

    volume: Volume
    lesions: list[PlantedLesion]
    wanted: int
    background: Background


def study_background(hu: np.ndarray, spacing: Sequence[float]) -> Background:
    """Find the tissues, the point spread and the noise of a scan.

    Args:
        hu: HU, shape (D, H, W), with axial slices.
        spacing: Voxel spacing ``(x, y, z)`` in mm.
    """
    tissue = find_tissue(hu, spacing)
    noise = estimate_noise(hu, spacing, tissue.positions(TISSUES[1]))
    return Background(tissue, estimate_point_spread(hu), noise)


def plant_lesions(
    volume: Volume,
    shapes: Shapes,
    settings: PlantingSettings,
    rng: np.random.Generator,
    known: np.ndarray | None = None,
) -> PlantedScan:
    """Plant lesions into a scan.

    The same scan, shapes, settings and state of ``rng`` give the same voxels.

    Args:
        volume: HU with axial slices, whose array is not changed.
        shapes: Library of shapes.
        settings: What is planted.
        rng: Random generator.
        known: Lesions of the scan ``(x, y, z, diameter)`` in world mm, shape (N, 4), which planted
            lesions do not touch.

    Returns:
        The scan and its planted lesions.

    Raises:
        InputError: The scan has none of the tissues, or there is no place for any lesion.
    """
    background = study_background(volume.array, volume.spacing)
    present = [one for one in settings.tissues if background.tissue.masks[one].any()]
    if not present:
        raise InputError(
            f"no {' or '.join(settings.tissues)} is found in the scan; expected a CT that shows it"
        )
    edges = np.array(volume.spacing[::-1])
    taken = []
    for x, y, z, diameter in np.reshape(known if known is not None else [], (-1, 4)):
        voxel = volume.geometry.points_to_voxels([x, y, z])[0][::-1] - 0.5
        taken.append((voxel * edges, diameter / 2))
    hu = volume.array.copy()
    wanted = int(rng.integers(settings.lesions[0], settings.lesions[1] + 1))
    result = PlantedScan(Volume.with_geometry(hu, volume.geometry), [], wanted, background)
    for _ in range(wanted):
        for _ in range(_TRIES):
            tissue = str(rng.choice(present))
            lesion = plant_lesion(
                hu, volume.geometry, background, shapes, settings, tissue, rng, taken
            )
            if lesion is not None:
                lesion = replace(lesion, number=len(result.lesions) + 1)
                result.lesions.append(lesion)
                middle = np.add(lesion.start, (np.array(lesion.mask.shape) - 1) / 2)
                taken.append((middle * edges, lesion.radius))
                break
    if wanted and not result.lesions:
        low, high = settings.diameter
        room = ", ".join(f"{background.tissue.volume(one):.0f} ml of {one}" for one in present)
        raise InputError(
            f"no lesion of {low:g} to {high:g} mm fits into the scan, which has {room}; expected "
            "smaller shapes or a larger scan"
        )
    return result


def plant_lesion(
    hu: np.ndarray,
    geometry: Geometry,
    background: Background,
    shapes: Shapes,
    settings: PlantingSettings,
    tissue: str,
    rng: np.random.Generator,
    taken: Sequence[tuple[np.ndarray, float]] = (),
    levels: tuple[float, float] | None = None,
    appearance: Appearance | None = None,
) -> PlantedLesion | None:
    """Try to plant one lesion at a random place.

    Args:
        hu: HU, shape (D, H, W), which is changed where the lesion is.
        geometry: Geometry of the scan.
        background: What was measured of the scan.
        shapes: Library of shapes.
        settings: What is planted.
        tissue: The tissue to plant into.
        rng: Random generator.
        taken: Centers (z, y, x) in mm, from the center of the first voxel, and radii in mm of other
            lesions.
        levels: First and last slice of the center; the lesion may then exceed the volume along z.
        appearance: HU of the lesion; by default it is drawn, or is the texture of the shape.

    Returns:
        The lesion, or None if there is no place for the shape that was drawn, if it has fewer than
        three rows or columns of voxels, or if it would not be visible in the noise.
    """
    shape, scale = shapes.draw(rng, settings.diameter, settings.scale)
    rotation = random_rotation(rng)
    share = _SHARE.get(tissue, _OTHER_SHARE)
    points = scale * shape.points @ rotation.T
    center = draw_site(
        background.tissue, tissue, points, hu.shape, taken, settings.distance, share, rng, levels
    )
    if center is None:
        return None
    spread = background.point_spread
    rendered = render_shape(shape, rotation, scale, center, geometry.spacing, spread)
    inside = _clip(rendered, hu.shape)
    if inside is None:
        return None
    rendered = inside
    z, y, x = rendered.start
    d, h, w = rendered.fraction.shape
    crop = (slice(z, z + d), slice(y, y + h), slice(x, x + w))
    before = hu[crop].astype(np.float32)
    fraction, opacity = rendered.fraction, rendered.opacity
    edge: np.ndarray | float = 1.0
    if tissue == LUNG:
        lung = close_lung(before, geometry.spacing)
        edge = _soft_edge(lung, geometry.spacing, spread)
        fraction, opacity = fraction * lung, opacity * edge
    most = float(fraction.max())
    if most < _LEAST_FRACTION:
        return None
    mask, count = ndimage.label(fraction >= min(0.5, 0.6 * most), np.ones((3, 3, 3)))
    # Vessels and the pleura may cut off a part; the lesion is the largest one.
    mask = mask == np.bincount(mask.ravel())[1:].argmax() + 1
    if count > 1:
        near = ndimage.binary_dilation(mask, np.ones((3, 3, 3)), iterations=2)
        opacity = opacity * near
    (box,) = ndimage.find_objects(mask.astype(np.uint8))
    mask = mask[box]
    if all(recist_axes(plane) is None for plane in mask):
        return None
    place = center * geometry.spacing[::-1]
    sigma = background.noise.sigma(place)
    if appearance is None and shape.texture is not None and settings.texture:
        appearance = Appearance("texture", float(np.median(shape.texture[shape.distance < 0])))
    if appearance is None:
        contrasts = settings.contrast
        if tissue != LUNG:
            least = settings.visibility * sigma / math.sqrt(mask.sum(axis=(1, 2)).max())
            if least > contrasts[1]:
                return None
            contrasts = (max(contrasts[0], least), contrasts[1])
        appearance = draw_appearance(tissue, rng, settings.subsolid, settings.hypodense, contrasts)
    uneven = smooth_field(before.shape, geometry.spacing[::-1], rng)
    target = appearance.hu + appearance.uneven * uneven
    texture = rendered.texture if appearance.kind == "texture" else None
    if appearance.kind in SHIFTED or (texture is not None and tissue != LUNG):
        if texture is not None:
            target = np.subtract(texture, level_within(before, opacity))
        after = shift(before, opacity, target, sigma, [max(value, 1.0) for value in spread])
    else:
        where = opacity > 0.1
        noise = borrow_noise(
            hu, background.tissue, background.noise, rendered.start, where, rng, taken
        )
        if noise is None:
            noise = background.noise.sample(rng, before.shape, place)
        # In lung, fine structures look like more noise, but not like less.
        noise *= noise_ratio(before, noise, where, 1.0 if tissue == LUNG else math.inf)
        opacity = opacity * appearance.opacity
        if appearance.core:
            core = _core(shape, rotation, scale * appearance.core, center, rendered, background)
            opacity = np.maximum(opacity, core * edge)
        if texture is not None:
            target = texture
        elif appearance.kind == "replaced":
            target = target + float(np.median(before[fraction > 0.5]))
        after = merge(before, opacity, target, noise)
    _write(hu, crop, after)
    start = (z + box[0].start, y + box[1].start, x + box[2].start)
    contrast = float(after[box][mask].mean() - before[box][mask].mean())
    return PlantedLesion(0, tissue, appearance, shape.name, start, mask, geometry, contrast)


def _clip(rendered: RenderedShape, shape: Sequence[int]) -> RenderedShape | None:
    """Cut off what is outside of the volume; None if nothing is left."""
    low = [max(0, -first) for first in rendered.start]
    high = [
        min(n, size - first)
        for n, size, first in zip(rendered.fraction.shape, shape, rendered.start)
    ]
    if any(a >= b for a, b in zip(low, high)):
        return None
    part = tuple(slice(a, b) for a, b in zip(low, high))
    z, y, x = (first + a for first, a in zip(rendered.start, low))
    texture = None if rendered.texture is None else rendered.texture[part]
    return RenderedShape((z, y, x), rendered.fraction[part], rendered.opacity[part], texture)


def _core(
    shape: LesionShape,
    rotation: np.ndarray,
    scale: float,
    center: np.ndarray,
    whole: RenderedShape,
    background: Background,
) -> np.ndarray:
    """Return the opacity of the solid part of a lesion on the voxels of the whole."""
    edges = background.tissue.spacing
    part = render_shape(shape, rotation, scale, center, edges[::-1], background.point_spread)
    result = np.zeros_like(whole.opacity)
    # The part is smaller, but has the same margin.
    low = [max(b, a) for a, b in zip(part.start, whole.start)]
    high = [
        min(a + n, b + m)
        for a, n, b, m in zip(part.start, part.opacity.shape, whole.start, result.shape)
    ]
    to = tuple(slice(a - b, c - b) for a, b, c in zip(low, whole.start, high))
    of = tuple(slice(a - b, c - b) for a, b, c in zip(low, part.start, high))
    if all(a < b for a, b in zip(low, high)):
        result[to] = part.opacity[of]
    return result


def _soft_edge(lung: np.ndarray, spacing: Sequence[float], spread: Sequence[float]) -> np.ndarray:
    """Return the mask of the lung, with the partial volume at the pleura and a blurred edge."""
    if lung.all():
        return np.ones(lung.shape, np.float32)
    grown = ndimage.distance_transform_edt(~lung, spacing[::-1]) <= _PLEURA
    return ndimage.gaussian_filter(grown.astype(np.float32), spread, mode="nearest")


def _write(hu: np.ndarray, crop: tuple[slice, slice, slice], after: np.ndarray) -> None:
    if np.issubdtype(hu.dtype, np.integer):
        limits = np.iinfo(hu.dtype)
        after = np.rint(after).clip(limits.min, limits.max)
    hu[crop] = after
