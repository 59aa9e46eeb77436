"""Organs of the standard patient, in nominal mm as in :mod:`.anatomy`."""

from __future__ import annotations

import numpy as np

from .canvas import CAVITY, Canvas, Tissue, curve


def paint_bowel(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint small bowel and colon with their content and gas."""
    cavity = (Tissue.ABDOMEN, Tissue.PELVIS)
    inside = (*cavity, Tissue.BOWEL)
    for _ in range(13):
        points = np.empty((7, 3))
        points[0] = rng.uniform((-80, -62, 335), (80, 5, 520))
        for step in range(1, 7):
            move = rng.normal(size=3) * (1.0, 0.7, 0.7)
            points[step] = points[step - 1] + 30.0 * move / np.linalg.norm(move)
        points = np.clip(points, (-95, -68, 330), (95, 15, 540))
        radius = rng.uniform(8.0, 12.0)
        canvas.rods(points, radius, 75.0, Tissue.BOWEL, within=cavity)
        canvas.rods(points, radius - 3.0, rng.uniform(10.0, 35.0), Tissue.BOWEL, within=inside)
        gas = points[rng.integers(0, 7)]
        canvas.ellipsoid(
            gas, (radius * 0.75,) * 3, -920.0, Tissue.AIRWAY, within=inside, below=gas[1]
        )
    for side, top, bottom in ((-1, 330.0, 470.0), (1, 300.0, 480.0)):
        sway = rng.uniform(0, 2 * np.pi)

        def cx(z, side=side, sway=sway):
            return side * (102.0 + 5.0 * np.sin(z / 17.0 + sway))

        def width(z, sway=sway):
            return 15.0 + 2.5 * np.sin(z / 6.0 + sway)

        canvas.stack((top, bottom), cx, 5.0, width, width, 60.0, Tissue.BOWEL, within=cavity)
        canvas.stack(
            (top, bottom), cx, 5.0, lambda z: width(z) - 3.0, lambda z: width(z) - 3.0,
            5.0, Tissue.BOWEL, within=inside,
        )  # fmt: skip
        for _ in range(6):
            z = rng.uniform(top, bottom)
            center = (float(cx(z)), 5.0 + rng.uniform(-6, 2), z)
            canvas.ellipsoid(
                center, rng.uniform(4.0, 9.0, 3), -900.0, Tissue.AIRWAY, within=inside,
                below=center[1] + 3.0,
            )  # fmt: skip


def paint_abdomen(canvas: Canvas, rng: np.random.Generator, enhancement: float) -> None:
    """Paint stomach, spleen, liver, gall bladder, pancreas, kidneys and adrenals."""
    inside = (*CAVITY, Tissue.BOWEL)
    liver = 60.0 + 45.0 * enhancement
    stretch = rng.uniform(0.92, 1.08)
    canvas.ellipsoid((48, -38, 282), (46, 36, 46 * stretch), 70.0, Tissue.BOWEL, within=inside)
    stomach = (*inside, Tissue.BOWEL)
    canvas.ellipsoid((48, -38, 282), (42, 32, 42 * stretch), 15.0, Tissue.BOWEL, within=stomach)
    canvas.ellipsoid(
        (48, -38, 282), (41, 31, 41 * stretch), -930.0, Tissue.AIRWAY, within=stomach, below=-50.0
    )
    canvas.ellipsoid(
        (96, 34, 282), (33, 40, 50 * stretch), liver + 12.0, Tissue.SPLEEN, within=CAVITY
    )
    for center, radii in (
        ((-72, -4, 272), (82, 84, 88 * stretch)),
        ((-18, -44, 258), (72, 36, 44)),
        ((-98, 12, 330), (40, 52, 55 * stretch)),
    ):
        canvas.ellipsoid(center, radii, liver, Tissue.LIVER, within=(*inside, Tissue.AIRWAY))
    canvas.ellipsoid((-52, -34, 322), (15, 19, 26), 10.0, Tissue.FLUID)
    pancreas = np.array(
        [(-30, -16, 338), (-12, -22, 328), (14, -20, 318), (44, -4, 308), (72, 10, 302)]
    )
    canvas.rods(pancreas, 10.0, 60.0 + 35.0 * enhancement, Tissue.BOWEL, within=inside)
    replaced = (*inside, Tissue.LIVER, Tissue.SPLEEN)
    for side, height in ((-1, 362.0), (1, 350.0)):
        # The adrenal moves with its kidney.
        z = height + rng.uniform(-8, 8)
        kidney = np.array((side * 64.0, 38.0, z))
        # Perirenal fat, cortex, medulla, sinus.
        canvas.ellipsoid(kidney, (34, 36, 62), -105.0, Tissue.ABDOMEN, within=replaced)
        canvas.ellipsoid(
            kidney,
            (26, 29, 54),
            40.0 + 125.0 * enhancement,
            Tissue.KIDNEY,
            within=(Tissue.ABDOMEN,),
        )
        for angle in np.linspace(-2.2, 2.2, 5):
            for level in (-30.0, -10.0, 10.0, 30.0):
                offset = np.array((side * 13 * np.cos(angle), 15 * np.sin(angle), level))
                canvas.ellipsoid(
                    kidney + offset, (6.5, 6.5, 8), 35.0 + 80.0 * enhancement, Tissue.KIDNEY,
                    within=(Tissue.KIDNEY,),
                )  # fmt: skip
        canvas.ellipsoid(
            kidney - (side * 13.0, 0, 0),
            (17, 9, 30),
            -80.0,
            Tissue.ABDOMEN,
            within=(Tissue.KIDNEY,),
        )
        adrenal = np.array([(side * 38, 26, z - 62), (side * 46, 40, z - 56)], float)
        canvas.rods(adrenal, 3.0, 75.0, Tissue.BOWEL, within=CAVITY)


def paint_lungs(canvas: Canvas) -> None:
    """Paint both lungs, without vessels."""
    for side in (-1, 1):
        where = canvas.region((side * 76 - 72, side * 76 + 72), (-95, 95), (18.0, 290.0))
        if where is None:
            continue
        z = canvas.z[where[0]]
        cx = curve([18, 60, 120, 290], [52, 66, 76, 78])(z).astype(np.float32)[:, None, None]
        cy = curve([18, 60, 120, 290], [12, 0, -4, 4])(z).astype(np.float32)[:, None, None]
        rx = curve([18, 28, 60, 120, 200], [3, 22, 48, 61, 63])(z)[:, None, None]
        ry = curve([18, 28, 60, 120, 200], [3, 28, 62, 82, 84])(z)[:, None, None]
        rx, ry = rx.astype(np.float32), ry.astype(np.float32)
        x, y = canvas.warped_x[where], canvas.warped_y[where]
        dx, dy = side * x - cx, y - cy
        # The inner side is flatter than the outer one.
        rx = np.where(dx < 0, 0.92 * rx, rx)
        unit = (np.abs(dx / rx) ** 2.4 + np.abs(dy / ry) ** 2.4) ** np.float32(1 / 2.4)
        length = np.sqrt(dx**2 + dy**2) + np.float32(1e-3)
        distance = length - length / np.maximum(unit, 1e-6)
        base = _lung_base(x, y, side).astype(np.float32)
        distance = np.maximum(distance, 0.5 * (z[:, None, None] - base))
        tissues = [
            tissue for tissue in Tissue if tissue not in (Tissue.AIR, Tissue.FAT, Tissue.TABLE)
        ]
        canvas.blend(where, distance, -860.0, Tissue.LUNG, tissues)


def paint_heart(canvas: Canvas, enhancement: float) -> None:
    """Paint mediastinal fat, heart, airways and esophagus."""
    inside = (
        *CAVITY,
        *(Tissue.LUNG, Tissue.LIVER, Tissue.BOWEL),
        *(Tissue.AIRWAY, Tissue.HEART, Tissue.VESSEL),
    )
    canvas.stack(
        (25, 140), 0.0, -18.0, curve([25, 140], [26, 33]), curve([25, 140], [30, 42]),
        -85.0, Tissue.MEDIASTINUM, within=(Tissue.LUNG, Tissue.VESSEL),
    )  # fmt: skip
    blood = 45.0 + 130.0 * enhancement
    canvas.ellipsoid((16, -24, 172), (60, 50, 62), -80.0, Tissue.MEDIASTINUM, within=inside)
    canvas.ellipsoid(
        (16, -24, 172), (55, 45, 57), 60.0 + 40 * enhancement, Tissue.HEART, within=inside
    )
    for center, radii in (
        ((38, -14, 182), (20, 22, 36)),
        ((12, -44, 180), (26, 16, 34)),
        ((-16, -22, 166), (17, 20, 28)),
        ((14, 6, 150), (26, 12, 22)),
    ):
        canvas.ellipsoid(center, radii, blood, Tissue.HEART, within=(Tissue.HEART,))
    # Trachea, main bronchi and esophagus.
    organs = (*CAVITY, Tissue.LUNG, Tissue.VESSEL, Tissue.HEART)
    canvas.stack((-20, 102), -2.0, 2.0, 11.0, 10.5, 50.0, Tissue.AIRWAY)
    canvas.stack((-20, 102), -2.0, 2.0, 8.5, 8.0, -985.0, Tissue.AIRWAY)
    for side, reach in ((-1, 118.0), (1, 122.0)):
        start, stop = (-2.0, 2.0, 98.0), (side * 36.0, 8.0, reach)
        canvas.capsule(start, stop, 8.0, 45.0, Tissue.AIRWAY, within=organs)
        canvas.capsule(start, stop, 6.0, -980.0, Tissue.AIRWAY)
    canvas.stack((-20, 255), 4.0, 22.0, 7.5, 5.5, 45.0, Tissue.BOWEL, within=CAVITY)


def paint_pelvic_organs(canvas: Canvas, rng: np.random.Generator) -> None:
    """Paint bladder, prostate or uterus, and rectum."""
    inside = (*CAVITY, Tissue.BOWEL)
    filling = rng.uniform(0.6, 1.15)
    canvas.ellipsoid((0, -32, 545), 38 * filling * np.array((1.1, 0.9, 0.9)), 50.0, Tissue.BOWEL)
    canvas.ellipsoid(
        (0, -32, 545), 38 * filling * np.array((1.1, 0.9, 0.9)) - 3.5, 6.0, Tissue.FLUID
    )
    canvas.ellipsoid((0, 14, 560), (26, 17, 24), 75.0, Tissue.BOWEL, within=inside)
    middle = curve([470, 520, 600], [42.0, 48.0, 52.0])
    canvas.stack((470, 610), 0.0, middle, 15.0, 13.0, 60.0, Tissue.BOWEL)
    canvas.stack((470, 600), 0.0, middle, 11.0, 9.0, 15.0, Tissue.BOWEL)
    canvas.stack(
        (470, 590), 0.0, middle, 9.0, 7.0, -900.0, Tissue.AIRWAY, below=lambda z: middle(z) - 1.0
    )


def _lung_base(x: np.ndarray, y: np.ndarray, side: int) -> np.ndarray:
    """Return the level in mm of the diaphragm under the right (−1) or left (1) lung."""
    radius = ((x - side * 68.0) / 68.0) ** 2 + ((y + 12.0) / 85.0) ** 2
    top = 193.0 if side < 0 else 205.0
    return top + 75.0 * np.clip(radius, 0.0, 1.5)
