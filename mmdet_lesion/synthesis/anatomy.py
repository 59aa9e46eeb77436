"""Trunk of the standard patient, from the shoulders to the pubis.

Coordinates are in nominal mm: x to the patient's left (the right of the image), y backwards, z
towards the feet; the outline is about 340 mm wide and 224 mm deep. The random numbers of a patient
do not depend on the painted part, so that two sub-volumes of one series show the same body.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .canvas import CAVITY, Canvas, Tissue, curve
from .organs import (
    paint_abdomen,
    paint_bowel,
    paint_heart,
    paint_lungs,
    paint_pelvic_organs,
)
from .skeleton import paint_skeleton
from .vessels import paint_lung_vessels, paint_organ_vessels, paint_trunks, paint_wanderers

WIDTH, DEPTH = 340.0, 224.0
DIAPHRAGM = 205.0
BRIM = 425.0
"""Levels in mm that separate chest, abdomen and pelvis."""


@dataclass(frozen=True)
class Body:
    """Body of a patient.

    Attributes:
        scale: Actual divided by nominal size, (x, y, z).
        warp: Parameters of the warp, see :class:`Canvas`.
        fat: Thickness of the subcutaneous fat in mm.
        seed: Seed of the patient for everything else that varies.
    """

    scale: tuple[float, float, float]
    warp: np.ndarray
    fat: float
    seed: np.random.SeedSequence

    @classmethod
    def draw(cls, seed: np.random.SeedSequence) -> Body:
        """Draw a random body."""
        rng = np.random.default_rng(seed)
        width = rng.uniform(0.88, 1.12)
        scale = (width, width * rng.uniform(0.93, 1.07), rng.uniform(0.97, 1.05))
        shape = (2, 2)
        warp = np.stack(
            [
                rng.uniform(1.0, 4.0, shape),
                rng.uniform(150.0, 280.0, shape),
                rng.uniform(120.0, 300.0, shape) * rng.choice([-1, 1], shape),
                rng.uniform(0.0, 2 * np.pi, shape),
            ],
            axis=-1,
        )
        return cls(scale, warp, float(rng.uniform(10.0, 24.0)), seed)


def paint_body(
    canvas: Canvas, body: Body, vessels: tuple[int, int], enhancement: tuple[float, float]
) -> None:
    """Paint a patient without lesions, texture or noise.

    Args:
        canvas: Empty canvas.
        body: Body of the patient.
        vessels: Range of the number of distractor vessels.
        enhancement: Range of the enhancement by contrast agent; 0 is a scan without it.
    """
    # `SeedSequence.spawn` is stateful: a second call would give other seeds.
    seeds = [
        np.random.default_rng(
            np.random.SeedSequence(body.seed.entropy, spawn_key=(*body.seed.spawn_key, index))
        )
        for index in range(8)
    ]
    agent = float(seeds[0].uniform(*enhancement))
    _paint_table(canvas)
    _paint_outline(canvas, body.fat)
    paint_bowel(canvas, seeds[1])
    paint_abdomen(canvas, seeds[2], agent)
    paint_organ_vessels(canvas, seeds[3], agent)
    paint_lungs(canvas)
    paint_lung_vessels(canvas, seeds[4])
    paint_heart(canvas, agent)
    paint_wanderers(canvas, seeds[5], vessels, agent)
    paint_pelvic_organs(canvas, seeds[6])
    paint_skeleton(canvas)
    paint_trunks(canvas, seeds[7], agent)


def _paint_table(canvas: Canvas) -> None:
    # A cradle, which is not warped.
    x, y = canvas.x[None, None, :], canvas.y[None, :, None]
    distance = np.maximum(np.abs(y - 121.0 + 16.0 * (x / 190.0) ** 2) - 3.0, np.abs(x) - 190.0)
    everywhere = (slice(None),) * 3
    canvas.blend(everywhere, np.broadcast_to(distance, canvas.hu.shape), -400.0, Tissue.TABLE)


def _paint_outline(canvas: Canvas, fat: float) -> None:
    levels = [-20, 25, 70, 150, 260, 340, 420, 520, 640]
    half_width = curve(levels, [172, 178, 168, 158, 156, 152, 162, 172, 168])
    half_depth = curve(levels, [84, 92, 102, 110, 110, 106, 106, 108, 102])
    layer = curve(levels, [0.7, 0.6, 0.5, 0.55, 0.8, 1.0, 1.1, 1.2, 1.2])
    whole = (-1e3, 1e3)

    def shrunk(outer, by):
        return lambda z: outer(z) - by(z)

    def to_muscle(z):
        return 2.0 + fat * layer(z)

    def to_cavity(z):
        return to_muscle(z) + wall(z)

    wall = curve(levels, [70, 52, 20, 14, 13, 13, 22, 34, 38])
    for shrink, hu, tissue in (
        (lambda z: 0.0 * z, 20.0, Tissue.FAT),
        (lambda z: 0.0 * z + 2.0, -100.0, Tissue.FAT),
        (to_muscle, 55.0, Tissue.MUSCLE),
    ):
        canvas.stack(
            whole, 0.0, 0.0, shrunk(half_width, shrink), shrunk(half_depth, shrink), hu, tissue,
            power=2.5,
        )  # fmt: skip
    for z, hu, tissue in (
        ((5.0, DIAPHRAGM), -85.0, Tissue.MEDIASTINUM),
        ((DIAPHRAGM, BRIM), -105.0, Tissue.ABDOMEN),
        ((BRIM, 590.0), -105.0, Tissue.PELVIS),
    ):
        canvas.stack(
            z, 0.0, curve([200, 320, 430], [-4.0, -8.0, -4.0]),
            shrunk(half_width, to_cavity), shrunk(half_depth, to_cavity), hu, tissue, power=2.3,
        )  # fmt: skip
    trunk = (*CAVITY, Tissue.FAT, Tissue.MUSCLE)
    for side in (-1, 1):
        # Paraspinal muscles, psoas, shoulder and gluteal muscles.
        back = curve([0, 100, 300, 560], [58, 72, 78, 76])
        canvas.stack((-20, 560), side * 30.0, back, 25.0, 15.0, 58.0, Tissue.MUSCLE, within=trunk)
        canvas.stack(
            (320, 520),
            curve([320, 420, 520], [side * 30.0, side * 44.0, side * 66.0]),
            curve([320, 420, 520], [44.0, 38.0, 2.0]),
            curve([320, 400, 520], [7.0, 19.0, 16.0]),
            curve([320, 400, 520], [8.0, 21.0, 18.0]),
            60.0,
            Tissue.MUSCLE,
        )
        canvas.stack((430, 640), side * 74.0, 60.0, 52.0, 26.0, 55.0, Tissue.MUSCLE, within=trunk)
