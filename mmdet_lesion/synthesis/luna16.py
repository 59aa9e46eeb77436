"""Phantoms in LUNA16's published layout.

``OUT/subset{0…9}/{seriesuid}.mhd`` and ``.raw`` contain a scan in HU, ``OUT/annotations.csv`` the
nodules of 3 mm or more, ``OUT/annotations_excluded.csv`` the irrelevant findings and
``OUT/seriesuids.csv`` the scans (without a header line). Positions are in world millimeters (LPS);
origins are shifted, and some scans have flipped axes. As in LUNA16, irrelevant findings without a
measurement have a diameter of -1.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from ..io.atomic import atomic_write, write_json
from ..io.metaimage import write_metaimage
from ..structures.volume import Volume
from .anatomy import WIDTH, Body, paint_body
from .canvas import Canvas
from .image import finish
from .luna16_config import Luna16PhantomConfig
from .nodules import Finding, LungSpace, place_findings, place_nodules
from .output import SETTINGS_FILE, new_folder, render_all
from .vessels import paint_lung_vessels

__all__ = ["Luna16Scan", "make_luna16", "render_scan"]

SUBSETS = 10
COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")
_TOP, _BOTTOM = 8.0, 292.0
"""Range of the levels of the lungs of the standard patient in mm."""
_PADDING = -3024


@dataclass(frozen=True)
class Luna16Scan:
    """A rendered scan.

    Attributes:
        uid: Series UID.
        volume: Volume in HU, int16, with its geometry.
        nodules: Nodules with centers in world coordinates (x, y, z) in mm.
        findings: Irrelevant findings with centers in world coordinates.
    """

    uid: str
    volume: Volume
    nodules: list[Finding]
    findings: list[Finding]


def new_uid(rng: np.random.Generator) -> str:
    """Draw a series UID."""
    # UIDs with the prefix 2.25 are derived from UUIDs and need no registered root.
    return "2.25." + str(int.from_bytes(rng.bytes(16), "big"))


def render_scan(index: int, config: Luna16PhantomConfig) -> Luna16Scan:
    """Render one scan; the same index and settings give the same voxels.

    Args:
        index: Index of the scan, from 0.
        config: The settings.
    """
    body_seed, vessel_seed, seed = np.random.SeedSequence((config.seed, index)).spawn(3)
    rng = np.random.default_rng(seed)
    uid = new_uid(rng)
    pixel = float(f"{rng.uniform(*config.pixel):.6g}")
    interval = float(f"{rng.uniform(*config.interval):.6g}")
    fitting = pixel * config.size / (WIDTH * rng.uniform(1.05, 1.2))
    stature = float(np.clip(fitting, *config.stature))
    body = Body.draw(body_seed)
    width, depth, height = body.scale
    body = replace(body, scale=(stature * width, stature * depth, stature * height))
    above, below = _TOP * body.scale[2], _BOTTOM * body.scale[2]
    canvas = Canvas(
        (int((below - above) / interval) + 1, config.size, config.size),
        (pixel, pixel, interval),
        above,
        body.scale,
        body.warp,
    )
    paint_body(canvas, body, (0, 0), (0.6, 1.1))
    if config.vessels:
        paint_lung_vessels(canvas, np.random.default_rng(vessel_seed), config.vessels)
    space = LungSpace(canvas)
    nodules = place_nodules(canvas, space, config, rng)
    findings = place_findings(canvas, space, nodules, config, rng)
    hu = finish(canvas, config.noise, rng)
    if rng.random() < config.padded:
        distance = np.hypot(canvas.y_mm[:, None], canvas.x_mm[None, :])
        hu[:, distance > 0.5 * config.size * pixel] = _PADDING
    shift = rng.uniform((-30.0, -220.0, -420.0), (30.0, -120.0, 420.0))
    flips = [rng.random() < config.flipped] * 2 + [rng.random() < 0.5 * config.flipped]
    volume = _place(hu, canvas, shift, flips)
    return Luna16Scan(uid, volume, _to_world(nodules, shift), _to_world(findings, shift))


def _to_world(findings: Iterable[Finding], shift: np.ndarray) -> list[Finding]:
    # z points towards the feet in the canvas and towards the head in the world.
    return [replace(f, center=f.center * (1.0, 1.0, -1.0) + shift) for f in findings]


def _place(hu: np.ndarray, canvas: Canvas, shift: np.ndarray, flips: list[bool]) -> Volume:
    """Return the volume in world coordinates with the axes in ``flips`` (x, y, z) flipped."""
    array = hu[::-1]
    ends = [
        (canvas.x_mm[[0, -1]] + shift[0]),
        (canvas.y_mm[[0, -1]] + shift[1]),
        (-canvas.z_mm[[-1, 0]] + shift[2]),
    ]
    for axis, flip in enumerate(flips):
        if flip:
            array = np.flip(array, axis=2 - axis)
    x, y, z = (pair[1] if flip else pair[0] for pair, flip in zip(ends, flips))
    direction = tuple(np.diag([-1.0 if flip else 1.0 for flip in flips]).ravel().tolist())
    return Volume(np.ascontiguousarray(array), canvas.spacing, (x, y, z), direction)


def make_luna16(
    out: str | os.PathLike,
    config: Luna16PhantomConfig,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, int]:
    """Write a phantom dataset in LUNA16's layout.

    ``out`` appears only when all files are written. They depend only on the settings, not on
    ``workers``.

    Args:
        out: The folder to write.
        config: The settings, which are saved in ``phantoms.json``.
        workers: Number of processes.
        overwrite: Whether to replace existing phantoms in ``out``.
        progress: Whether to show a progress bar.

    Returns:
        The numbers of ``scans``, ``nodules`` and ``findings``, and of each kind.

    Raises:
        InputError: ``out`` holds other files.
    """
    counts: Counter[str] = Counter(scans=config.volumes, nodules=0, findings=0)
    uids, nodules, findings = [], [], []
    with new_folder(out, overwrite) as building:
        write = partial(_write_scan, config=config, out=building)
        for uid, scan_nodules, scan_findings in render_all(
            write, range(config.volumes), workers, progress
        ):
            uids.append(uid)
            nodules += [table_row(uid, nodule.center, nodule.diameter) for nodule in scan_nodules]
            findings += [
                table_row(uid, found.center, found.diameter if found.kind == "uncertain" else -1)
                for found in scan_findings
            ]
            counts.update(nodules=len(scan_nodules), findings=len(scan_findings))
            counts.update(found.kind for found in [*scan_nodules, *scan_findings])
        write_lines(building / "annotations.csv", [",".join(COLUMNS), *sorted(nodules)])
        write_lines(building / "annotations_excluded.csv", [",".join(COLUMNS), *sorted(findings)])
        write_lines(building / "seriesuids.csv", sorted(uids))
        write_json(
            building / SETTINGS_FILE,
            {"layout": "luna16", "settings": asdict(config), "summary": dict(counts)},
            indent=2,
        )
    return dict(counts)


def _write_scan(
    index: int, config: Luna16PhantomConfig, out: Path
) -> tuple[str, list[Finding], list[Finding]]:
    scan = render_scan(index, config)
    write_metaimage(out / f"subset{index % SUBSETS}" / f"{scan.uid}.mhd", scan.volume)
    return scan.uid, scan.nodules, scan.findings


def table_row(uid: str, center: Iterable[float], diameter: float) -> str:
    """Return a row of a table of nodules or findings."""
    return ",".join([uid, *(f"{float(v):.10g}" for v in (*center, diameter))])


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a table atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="ascii")
