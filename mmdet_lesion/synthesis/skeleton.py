"""Bones of the standard patient."""

from __future__ import annotations

import numpy as np

from .canvas import Canvas, Tissue, curve

CORTEX, MARROW, CARTILAGE = 700.0, 190.0, 110.0
VERTEBRA, DISC = 32.0, 6.0
"""Height in mm of a vertebra with its disc, and of the disc."""


def paint_skeleton(canvas: Canvas) -> None:
    """Paint all bones."""
    _paint_ribs(canvas)
    _paint_spine(canvas)
    _paint_shoulders(canvas)
    _paint_pelvis(canvas)


def _paint_spine(canvas: Canvas) -> None:
    center = curve([-20, 60, 180, 330, 430], [50, 50, 58, 50, 46])
    size = curve([-20, 200, 440], [0.75, 0.95, 1.15])

    def within_disc(z):
        return np.mod(z, VERTEBRA) < DISC

    # Vertebrae and discs differ in shape, so slices are painted one by one.
    levels = canvas.z[canvas.z < 432.0]
    for z in levels:
        span = (float(z), float(np.nextafter(z, np.float32(1e4))))
        cy, s = float(center(z)), float(size(z))
        disc = bool(within_disc(z))
        phase = float(np.mod(z, VERTEBRA)) / VERTEBRA
        # Neural arch and processes first, since the vertebral body covers the pedicles.
        canvas.stack(span, 0.0, cy + 25 * s, 15 * s, 14 * s, CORTEX, Tissue.CORTEX)
        if 0.3 < phase < 0.6:
            for side in (-1.0, 1.0):
                canvas.capsule(
                    (side * 10 * s, cy + 26 * s, z), (side * 34 * s, cy + 32 * s, z), 4.0 * s,
                    CORTEX * 0.7, Tissue.CORTEX,
                )  # fmt: skip
        reach = 0.5 + 0.5 * np.sin(np.pi * phase)
        canvas.stack(
            span,
            0.0,
            cy + (36 + 8 * reach) * s,
            3.2 * s,
            12 * reach * s,
            CORTEX * 0.8,
            Tissue.CORTEX,
        )
        waist = 1.0 - (0.0 if disc else 0.09 * np.sin(np.pi * (phase - 0.19) / 0.81))
        rx, ry = 21.0 * s * waist, 16.0 * s * waist
        if disc:
            canvas.stack(span, 0.0, cy, rx, ry, 90.0, Tissue.CORTEX, power=2.4)
        else:
            plate = min(phase - DISC / VERTEBRA, 1 - phase) * VERTEBRA < 1.5
            canvas.stack(span, 0.0, cy, rx, ry, 0.7 * CORTEX, Tissue.CORTEX, power=2.4)
            if not plate:
                canvas.stack(span, 0.0, cy, rx - 2.0, ry - 2.0, MARROW, Tissue.BONE, power=2.4)
        canvas.stack(span, 0.0, cy + 24 * s, 9.5 * s, 8.5 * s, 30.0, Tissue.FLUID)


def _paint_ribs(canvas: Canvas) -> None:
    """Paint ribs, which run obliquely, so an axial slice cuts each of them once per side."""
    first, spacing, drop, count = -45.0, 22.0, 135.0, 12
    half = canvas.region((-150, 150), (-105, 105), (0.0, 325.0))
    if half is None:
        return
    z = canvas.z[half[0]]
    rx = curve([0, 40, 100, 200, 325], [78, 108, 134, 143, 138])(z).astype(np.float32)
    ry = curve([0, 40, 100, 200, 325], [66, 76, 86, 92, 88])(z).astype(np.float32)
    rx, ry = rx[:, None, None], ry[:, None, None]
    x, y = canvas.warped_x[half], canvas.warped_y[half]
    unit = np.sqrt((x / rx) ** 2 + (y / ry) ** 2)
    length = np.sqrt(x**2 + y**2) + np.float32(1e-3)
    across = length - length / np.maximum(unit, 1e-6)
    # 0 at the spine, 1 at the sternum.
    around = np.abs(np.arctan2(x, y)) / np.float32(np.pi)
    phase = (z[:, None, None] - first - drop * around) / spacing
    index = np.round(phase)
    along = (phase - index) * spacing
    # Lower ribs end before they reach the front.
    end = np.where(index >= 10, 0.45, np.where(index >= 7, 0.78, 0.93))
    shaft = np.sqrt((across / 4.2) ** 2 + (along / 7.0) ** 2)
    distance = (shaft - 1) * np.float32(4.2)
    missing = (index < 0) | (index >= count) | (around > end) | (around < 0.1)
    distance = np.where(missing, np.float32(99), distance)
    bony = np.where(around > 0.72, np.float32(CARTILAGE), np.float32(CORTEX))
    canvas.blend(half, distance, bony, Tissue.CORTEX)
    inner = np.where(around > 0.72, np.float32(CARTILAGE), np.float32(MARROW))
    canvas.blend(half, distance + np.float32(2.0), inner, Tissue.BONE)


def _paint_shoulders(canvas: Canvas) -> None:
    front = curve([30, 120, 200], [-74.0, -90.0, -98.0])
    canvas.stack((32, 195), 0.0, front, 17.0, 6.0, CORTEX, Tissue.CORTEX)
    canvas.stack((34, 193), 0.0, front, 14.5, 3.5, MARROW, Tissue.BONE)
    for side in (-1.0, 1.0):
        clavicle = np.array([(side * 14, -74, 34), (side * 70, -66, 14), (side * 130, -30, -2)])
        canvas.rods(clavicle, 6.0, CORTEX, Tissue.CORTEX)
        canvas.rods(clavicle, 3.5, MARROW, Tissue.BONE)
        for z in canvas.z[(canvas.z > -10) & (canvas.z < 135)]:
            lean = float(z) / 135.0
            inner = (side * (74 + 22 * lean), 82 - 6 * lean, float(z))
            outer = (side * (136 - 18 * lean), 40 + 22 * lean, float(z))
            canvas.capsule(inner, outer, 4.0, CORTEX, Tissue.CORTEX)
            canvas.capsule(inner, outer, 1.6, MARROW, Tissue.BONE)


def _paint_pelvis(canvas: Canvas) -> None:
    # Sacrum.
    levels = [430, 450, 500, 545]
    cy = curve(levels, [52, 58, 74, 72])
    rx = curve(levels, [40, 50, 38, 10])
    canvas.stack((430, 548), 0.0, cy, rx, curve(levels, [17, 20, 13, 6]), CORTEX, Tissue.CORTEX)
    canvas.stack(
        (430, 546), 0.0, cy, lambda z: rx(z) - 2.5, curve(levels, [14.5, 17.5, 10.5, 3.5]),
        MARROW, Tissue.BONE,
    )  # fmt: skip
    canvas.stack((430, 530), 0.0, lambda z: cy(z) + 9, 10.0, 4.5, 25.0, Tissue.FLUID)
    levels = [405, 440, 490, 530]
    wing = {
        "back_x": curve(levels, [92, 58, 56, 84]),
        "back_y": curve(levels, [26, 62, 58, 34]),
        "front_x": curve(levels, [104, 124, 118, 98]),
        "front_y": curve(levels, [4, -18, -30, -18]),
    }
    for side in (-1.0, 1.0):
        for radius, hu, tissue in ((8.0, CORTEX, Tissue.CORTEX), (5.2, MARROW, Tissue.BONE)):
            for z in canvas.z[(canvas.z > 405) & (canvas.z < 532)]:
                canvas.capsule(
                    (side * float(wing['back_x'](z)), float(wing['back_y'](z)), float(z)),
                    (side * float(wing['front_x'](z)), float(wing['front_y'](z)), float(z)),
                    radius, hu, tissue,
                )  # fmt: skip
        hip = (side * 92.0, 8.0, 558.0)
        canvas.ellipsoid(hip, (33, 33, 34), CORTEX, Tissue.CORTEX)
        canvas.ellipsoid(hip, (30, 30, 31), MARROW, Tissue.BONE)
        canvas.ellipsoid((hip[0] + side * 4, 8, 562), (26, 26, 28), 80.0, Tissue.CORTEX)
        canvas.ellipsoid((hip[0] + side * 4, 8, 562), (24, 24, 26), CORTEX, Tissue.CORTEX)
        canvas.ellipsoid((hip[0] + side * 4, 8, 562), (22, 22, 24), 1.4 * MARROW, Tissue.BONE)
        pubis = np.array([(side * 66, -24, 562), (side * 36, -58, 585), (side * 5, -64, 600)])
        ischium = np.array([(side * 72, 34, 560), (side * 64, 44, 600), (side * 58, 30, 640)])
        for rod in (pubis, ischium):
            canvas.rods(rod, 9.0, CORTEX, Tissue.CORTEX)
            canvas.rods(rod, 6.0, MARROW, Tissue.BONE)
