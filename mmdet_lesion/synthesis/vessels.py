"""Vessels of the standard patient."""

from __future__ import annotations

import numpy as np

from .canvas import CAVITY, Canvas, Tissue, curve

_SOFT = (*CAVITY, Tissue.BOWEL, Tissue.LUNG, Tissue.VESSEL, Tissue.AIRWAY)


def paint_trunks(canvas: Canvas, rng: np.random.Generator, enhancement: float) -> None:
    """Paint aorta, caval veins, pulmonary trunk and iliac vessels."""
    artery, vein = 45.0 + 140.0 * enhancement, 45.0 + 95.0 * enhancement
    wide = float(rng.uniform(0.9, 1.25))
    within = (*_SOFT, Tissue.HEART)
    ascending = np.array([(2, -26, 150), (-8, -32, 120), (-8, -30, 86), (4, -14, 72)], float)
    arch = np.array([(4, -14, 72), (16, 8, 74), (22, 26, 86)], float)
    canvas.rods(ascending, 15.0 * wide, artery, Tissue.VESSEL, within=within)
    canvas.rods(arch, 12.5 * wide, artery, Tissue.VESSEL, within=within)
    down = [80, 150, 250, 330, 425]
    canvas.stack(
        (80, 425), curve(down, [23, 24, 14, 8, 4]), curve(down, [30, 30, 34, 28, 22]),
        curve(down, [12.5 * wide, 12 * wide, 11 * wide, 10 * wide, 8.5 * wide]),
        curve(down, [12.5 * wide, 12 * wide, 11 * wide, 10 * wide, 8.5 * wide]),
        artery, Tissue.VESSEL, within=within,
    )  # fmt: skip
    canvas.stack((42, 150), -25.0, -26.0, 8.5, 9.5, vein + 30, Tissue.VESSEL, within=within)
    cava = [200, 300, 425]
    canvas.stack(
        (200, 428), curve(cava, [-22, -20, -16]), curve(cava, [8, 20, 24]),
        12.0, 9.5, vein, Tissue.VESSEL, within=(*within, Tissue.LIVER),
    )  # fmt: skip
    trunk = np.array([(20, -36, 135), (16, -28, 112), (26, 0, 112), (42, 10, 116)], float)
    canvas.rods(trunk, 11.5, artery - 10, Tissue.VESSEL, within=within)
    right = np.array([(16, -28, 112), (-12, -10, 114), (-38, 6, 120)], float)
    canvas.rods(right, 9.5, artery - 10, Tissue.VESSEL, within=within)
    for side in (-1.0, 1.0):
        neck = np.array([(side * 10, -12, 70), (side * 22, -8, 30), (side * 24, -10, -30)], float)
        canvas.rods(neck, 5.0, artery, Tissue.VESSEL)
        canvas.rods(neck - (side * -9, 7, 0), 6.5, vein, Tissue.VESSEL)
        origin = np.array((4.0 if side > 0 else -2.0, 22.0, 422.0))
        course = np.array(
            [(side * 30, 18, 460), (side * 58, -6, 500), (side * 70, -46, 560)], float
        )
        course = np.vstack([origin, course, (side * 74, -62, 640)])
        canvas.rods(course, 6.2 * wide, artery, Tissue.VESSEL)
        canvas.rods(course + (-side * 4.0, 12.0, 4.0), 7.0, vein, Tissue.VESSEL)
        renal = np.array([(0, 24, 350), (side * 44, 34, 354)], float)
        canvas.rods(renal, 3.5, vein, Tissue.VESSEL, within=(*CAVITY, Tissue.BOWEL))


def paint_lung_vessels(canvas: Canvas, rng: np.random.Generator, generations: int = 4) -> None:
    """Paint trees of pulmonary vessels that branch in each generation."""
    for side in (-1.0, 1.0):
        hilum = np.array((side * 38.0, 6.0, 120.0))
        directions = np.array(
            [(0.5, -0.3, -1), (0.4, 0.6, -0.9), (0.8, -0.7, 0.1), (0.6, 0.7, 0.4), (0.5, 0, 1),
             (0.5, -0.6, 0.9), (0.4, 0.6, 1.0)]
        )  # fmt: skip
        for direction in directions * (side, 1, 1):
            _grow(canvas, rng, hilum, direction, 42.0, 4.6, generations, 30.0, (Tissue.LUNG,))


def paint_organ_vessels(canvas: Canvas, rng: np.random.Generator, enhancement: float) -> None:
    """Paint portal, hepatic, splenic and mesenteric veins."""
    vein = 60.0 + 110.0 * enhancement
    liver = (Tissue.LIVER,)
    for direction in ((-1, -0.1, -0.3), (-0.9, 0.5, 0.3), (0.2, -0.9, -0.4)):
        _grow(canvas, rng, np.array((-30.0, -6.0, 290.0)), direction, 38.0, 5.0, 3, vein, liver)
    for direction in ((-1, -0.4, 0.5), (-0.6, 0.6, 0.4), (-0.3, -0.9, 0.5)):
        _grow(canvas, rng, np.array((-22.0, 8.0, 215.0)), direction, 36.0, 4.5, 3, vein, liver)
    soft = (*CAVITY, Tissue.BOWEL)
    portal = [(-34, -6, 292), (-14, -10, 312), (6, -10, 322), (50, 8, 305), (88, 26, 290)]
    canvas.rods(np.array(portal, float), 5.5, vein, Tissue.VESSEL, within=soft)
    mesenteric = [(-8, -10, 318), (-4, -24, 360), (-10, -30, 420), (-24, -28, 470)]
    canvas.rods(np.array(mesenteric, float), 5.5, vein, Tissue.VESSEL, within=soft)
    canvas.rods(np.array(mesenteric) + (14.0, 1.0, 4.0), 4.0, vein + 25, Tissue.VESSEL, within=soft)


def paint_wanderers(
    canvas: Canvas, rng: np.random.Generator, number: tuple[int, int], enhancement: float
) -> None:
    """Paint vessels between the organs that resemble lesions on a single slice.

    Their cross sections are round enhanced spots, which only neighboring slices distinguish from
    lesions.
    """
    within = (*CAVITY, Tissue.FAT, Tissue.LUNG, Tissue.MUSCLE, Tissue.BOWEL, Tissue.LIVER)
    knots = np.arange(-40.0, 700.0, 45.0)
    for _ in range(int(rng.integers(number[0], number[1] + 1))):
        angle, share = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.08, 0.75))
        home = np.array((135.0 * share * np.cos(angle), 88.0 * share * np.sin(angle) - 6.0))
        course = home + rng.normal(scale=7.0, size=(len(knots), 2))
        radius = rng.uniform(3.0, 7.0)
        canvas.stack(
            (-40, 700), curve(knots, course[:, 0]), curve(knots, course[:, 1]), radius,
            radius * rng.uniform(0.8, 1.0), 50.0 + rng.uniform(40, 110) * enhancement,
            Tissue.VESSEL, within=within,
        )  # fmt: skip


def _grow(canvas, rng, start, direction, length, radius, generations, hu, within) -> None:
    direction = np.asarray(direction, float)
    direction = direction / np.linalg.norm(direction)
    stop = start + length * direction
    canvas.capsule(start, stop, radius, hu, Tissue.VESSEL, within=(*within, Tissue.VESSEL))
    if generations > 1:
        for _ in range(2):
            turned = direction + rng.normal(scale=0.5, size=3)
            _grow(
                canvas, rng, stop, turned, 0.82 * length, 0.66 * radius, generations - 1, hu, within
            )
