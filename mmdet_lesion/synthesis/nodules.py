"""Synthesis of lung nodules and irrelevant findings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from .canvas import Canvas, Tissue
from .lesions import LesionShape, paint_shape
from .luna16_config import Luna16PhantomConfig

__all__ = ["Finding", "LungSpace", "place_findings", "place_nodules"]

LUNG_HU = -860.0
_COARSE = 2.0
"""Spacing in mm of the grid on which positions are searched, below the size of any nodule."""

_FINDINGS = ("micronodule", "scar", "thickening", "uncertain")
_FINDING_WEIGHTS = (0.4, 0.25, 0.15, 0.2)


@dataclass(frozen=True)
class Finding:
    """A nodule or an irrelevant finding.

    Attributes:
        kind: ``solid``, ``part_solid`` or ``juxtapleural`` for a nodule; ``micronodule``,
            ``scar``, ``thickening`` or ``uncertain`` for an irrelevant finding.
        center: Center (x, y, z) in mm in the coordinates of :class:`Canvas`.
        diameter: Diameter in mm of a sphere of the same volume.
    """

    kind: str
    center: np.ndarray
    diameter: float


class LungSpace:
    """Free space in the lungs.

    Args:
        canvas: Canvas with a painted body.
    """

    def __init__(self, canvas: Canvas) -> None:
        axes = (canvas.z_mm, canvas.y_mm, canvas.x_mm)
        steps = [max(1, int(_COARSE / spacing)) for spacing in canvas.spacing[::-1]]
        self._axes = [axis[::step] for axis, step in zip(axes, steps)]
        self._spacing = [s * step for s, step in zip(canvas.spacing[::-1], steps)]
        air = canvas.labels[tuple(slice(None, None, step) for step in steps)] == Tissue.LUNG
        # Closing includes the vessels in the lung, which would otherwise count as walls.
        radius = [int(np.ceil(4.0 / s)) for s in self._spacing]
        ball = sum(
            (grid / max(r, 1)) ** 2
            for grid, r in zip(np.ogrid[tuple(slice(-r, r + 1) for r in radius)], radius)
        )
        padded = np.pad(air, [(r, r) for r in radius])
        closed = ndimage.binary_closing(padded, ball <= 1.0)
        lung = closed[tuple(slice(r, r + n) for r, n in zip(radius, air.shape))]
        depth = ndimage.distance_transform_edt(lung, sampling=self._spacing)
        self._voxels = np.argwhere(air & lung)
        # The wall is half a voxel closer than the center of the nearest voxel outside the lung.
        self._depth = depth[tuple(self._voxels.T)] - 0.5 * min(self._spacing)
        self._field = depth

    def draw(
        self,
        rng: np.random.Generator,
        depth: tuple[float, float],
        radius: float,
        others: list[Finding],
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """Draw a position.

        Args:
            rng: Random generator.
            depth: Smallest and largest distance from the wall of the lung in mm.
            radius: Radius in mm in which there must be no other finding.
            others: Existing nodules and findings.

        Returns:
            Position (x, y, z) in mm and unit vector (x, y, z) pointing away from the wall; None if
            no position was found.
        """
        room = np.flatnonzero((self._depth >= depth[0]) & (self._depth <= depth[1]))
        for _ in range(30 if len(room) else 0):
            voxel = self._voxels[room[rng.integers(len(room))]]
            place = np.array([axis[i] for axis, i in zip(self._axes, voxel)])
            # A random shift, so that centers are not on the grid; too small to reach the wall.
            place = (place + rng.uniform(-0.25, 0.25, 3) * self._spacing)[::-1]
            if all(
                np.linalg.norm(place - other.center) > radius + 0.5 * other.diameter + 3.0
                for other in others
            ):
                return place, self._inward(voxel)
        return None

    def _inward(self, voxel: np.ndarray) -> np.ndarray:
        slopes = []
        for axis, spacing in enumerate(self._spacing):
            ends = []
            for step in (-1, 1):
                at = voxel.copy()
                at[axis] = np.clip(at[axis] + step, 0, self._field.shape[axis] - 1)
                ends.append(self._field[tuple(at)])
            slopes.append((ends[1] - ends[0]) / spacing)
        normal = np.array(slopes[::-1])
        length = np.linalg.norm(normal)
        return normal / length if length > 0 else np.array([1.0, 0.0, 0.0])


def _rotation(rng: np.random.Generator, first: np.ndarray | None = None) -> np.ndarray:
    """Draw a matrix of orthonormal rows; the first row may be given."""
    rows = rng.normal(size=(3, 3))
    if first is not None:
        rows[0] = first
    q, r = np.linalg.qr(rows.T)
    return (q * np.sign(np.diag(r))).T


def _shape(
    rng: np.random.Generator,
    radii: np.ndarray,
    rotation: np.ndarray,
    amplitude: float = 0.0,
    frequency: float = 1.0,
) -> LesionShape:
    return LesionShape(
        np.asarray(radii, float),
        rotation,
        rng.normal(scale=frequency, size=(5, 3)),
        rng.uniform(0, 2 * np.pi, 5),
        amplitude,
        float(min(1.2, 0.15 * 2 * np.min(radii))),
    )


def _nodule_shape(rng: np.random.Generator, diameter: float) -> LesionShape:
    """Draw a nearly round shape with the volume of a sphere of the given diameter."""
    stretch = np.exp(rng.normal(scale=0.12, size=3))
    radii = 0.5 * diameter * stretch / np.prod(stretch) ** (1 / 3)
    # Smooth, lobulated or spiculated.
    amplitude, frequency = ((0.0, 1.0), (0.06, 2.6), (0.045, 6.0))[
        rng.choice(3, p=(0.5, 0.35, 0.15))
    ]
    return _shape(rng, radii, _rotation(rng), amplitude, frequency)


def place_nodules(
    canvas: Canvas, space: LungSpace, config: Luna16PhantomConfig, rng: np.random.Generator
) -> list[Finding]:
    """Place and paint nodules in the lungs.

    Args:
        canvas: Canvas with a painted body.
        space: Free space in its lungs.
        config: Settings, of which number, diameters, kinds and contrast are used.
        rng: Random generator of the scan.

    Returns:
        The nodules; fewer than drawn if they do not fit.
    """
    nodules: list[Finding] = []
    low, high = config.diameter
    for _ in range(int(rng.integers(config.nodules[0], config.nodules[1] + 1))):
        diameter = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        juxtapleural = rng.random() < config.juxtapleural
        subsolid = rng.random() < config.subsolid
        place = None
        while place is None and diameter >= low:
            radius = 0.5 * diameter
            # The wall cuts off up to half of the radius; small nodules touch it.
            depth = (
                (0.5 * radius, max(0.8 * radius, 1.2)) if juxtapleural else (radius + 1.0, np.inf)
            )
            place = space.draw(rng, depth, radius, nodules)
            if place is None:
                diameter *= 0.8
        if place is None:
            continue
        kind = "part_solid" if subsolid else "juxtapleural" if juxtapleural else "solid"
        nodule = Finding(kind, place[0], diameter)
        nodules.append(nodule)
        _paint_nodule(canvas, nodule, config, rng)
    return nodules


def _paint_nodule(
    canvas: Canvas, nodule: Finding, config: Luna16PhantomConfig, rng: np.random.Generator
) -> None:
    shape = _nodule_shape(rng, nodule.diameter)
    solid = LUNG_HU + float(rng.uniform(*config.contrast))
    glass = LUNG_HU + float(rng.uniform(200.0, 400.0))
    # Walls and vessels are not painted over, so they are visible through ground glass.
    inside = (Tissue.LUNG,)
    if nodule.kind != "part_solid":
        paint_shape(canvas, shape, nodule.center, solid, within=inside)
        return
    paint_shape(canvas, shape, nodule.center, glass, within=inside)
    core = _nodule_shape(rng, nodule.diameter * float(rng.uniform(0.35, 0.6)))
    shift = rng.uniform(-0.12, 0.12, 3) * nodule.diameter
    paint_shape(canvas, core, nodule.center + shift, solid, within=(Tissue.LESION,))


def place_findings(
    canvas: Canvas,
    space: LungSpace,
    nodules: list[Finding],
    config: Luna16PhantomConfig,
    rng: np.random.Generator,
) -> list[Finding]:
    """Place and paint irrelevant findings apart from the nodules.

    Args:
        canvas: Canvas with a painted body and nodules.
        space: Free space in its lungs.
        nodules: The nodules.
        config: Settings, of which number of findings and contrast are used.
        rng: Random generator of the scan.

    Returns:
        The findings; fewer than drawn if they do not fit.
    """
    findings: list[Finding] = []
    for _ in range(int(rng.integers(config.findings[0], config.findings[1] + 1))):
        kind = str(rng.choice(_FINDINGS, p=_FINDING_WEIGHTS))
        diameter = float(
            {
                "micronodule": rng.uniform(1.5, 2.9),
                "scar": rng.uniform(4.0, 7.0),
                "thickening": rng.uniform(5.0, 9.0),
                "uncertain": rng.uniform(3.0, 7.0),
            }[kind]
        )
        depth = (0.0, 2.5) if kind == "thickening" else (0.5 * diameter, np.inf)
        place = space.draw(rng, depth, diameter, nodules + findings)
        if place is None:
            continue
        finding = Finding(kind, place[0], diameter)
        findings.append(finding)
        shape, hu = _finding_look(finding, place[1], config, rng)
        paint_shape(canvas, shape, finding.center, hu, None, within=(Tissue.LUNG,))
    return findings


def _finding_look(
    finding: Finding, inward: np.ndarray, config: Luna16PhantomConfig, rng: np.random.Generator
) -> tuple[LesionShape, float]:
    radius = 0.5 * finding.diameter
    dense = float(rng.uniform(*config.contrast))
    if finding.kind == "scar":
        # A band of the same volume, much longer than wide.
        radii = radius * np.array([2.6, rng.uniform(0.8, 1.0), rng.uniform(0.35, 0.5)])
        return _shape(rng, radii, _rotation(rng), 0.05, 3.0), LUNG_HU + 0.8 * dense
    if finding.kind == "thickening":
        radii = radius * np.array([0.4, 1.6, 1.5])
        return _shape(rng, radii, _rotation(rng, inward)), LUNG_HU + dense
    if finding.kind == "uncertain":
        return _nodule_shape(rng, finding.diameter), LUNG_HU + 0.45 * dense
    return _nodule_shape(rng, finding.diameter), LUNG_HU + dense
