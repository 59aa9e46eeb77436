"""Phantoms in DeepLesion's published layout.

``OUT/Images_png/{patient}_{study}_{series}/{slice}.png`` contains HU + 32768 as 16-bit integers,
``OUT/DL_info.csv`` the annotations of all splits, and ``OUT/harvester/`` the complete ground truth
in Lesion Harvester's format:

- ``Revised-Train100.pkl`` (validation volumes) and ``Revised-Test1071.pkl`` (test volumes) contain
  every lesion once, on its central slice, because the evaluation counts every row as a lesion.
- ``Full-Train.pkl`` (training volumes) contains every lesion on every slice where it is visible,
  so that all lesions on any key slice are known.

The table follows the published one: one row per annotation, coordinates from 1, boxes around the
RECIST diameters with a padding of 5 pixels at 512 × 512 and proportionally less in smaller images,
the lesion type only in validation and test rows (−1 in training), and the slices of the sub-volume
as ``Slice_range``. ``Possibly_noisy`` is set on a small fraction of the annotations, never on the
only one of a volume; their coordinates are correct as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..io.atomic import write_json
from ..io.dl_info import DLInfoRow, write_dl_info
from ..io.harvester import write_ground_truth
from .anatomy import DEPTH, WIDTH, Body, paint_body
from .canvas import Canvas
from .config import LAST_LEVEL, PhantomConfig
from .image import finish
from .lesions import Lesion, place_lesions
from .marking import mark_lesions
from .output import SETTINGS_FILE, new_folder, render_all
from .plan import VolumePlan, plan_volumes

HU_OFFSET = 32768
SPLITS = {1: "train", 2: "val", 3: "test"}
TRUTH_FILES = {1: "Full-Train.pkl", 2: "Revised-Train100.pkl", 3: "Revised-Test1071.pkl"}

_NOISY = 0.01
_LUNG, _WINDOW, _LUNG_WINDOW = 5, (-175.0, 275.0), (-1500.0, 500.0)


@dataclass(frozen=True)
class RenderedVolume:
    """A rendered phantom.

    Attributes:
        hu: HU, shape (D, H, W), int16.
        lesions: The n lesions of the volume.
        annotated: Whether each lesion has an annotation, shape (n,).
        noisy: Whether the annotation of each lesion is flagged as possibly noisy, shape (n,).
        locations: Relative positions (x, y, z) of the lesions in the body in 0…1, shape (n, 3).
    """

    hu: np.ndarray
    lesions: list[Lesion]
    annotated: np.ndarray
    noisy: np.ndarray
    locations: np.ndarray


def render_volume(plan: VolumePlan, config: PhantomConfig) -> RenderedVolume:
    """Render one sub-volume; the same plan and settings give the same voxels.

    Raises:
        InputError: No lesion of the configured types fits into it.
    """
    body = Body.draw(plan.body_seed)
    canvas = Canvas(
        (plan.slices, config.size, config.size),
        (plan.spacing, plan.spacing, plan.interval),
        plan.top,
        body.scale,
        body.warp,
    )
    paint_body(canvas, body, config.vessels, config.enhancement)
    rng = np.random.default_rng(plan.seed)
    lesions = place_lesions(canvas, config, rng)
    diameters = [2 * lesion.shape.radii[0] for lesion in lesions]
    annotated = mark_lesions(diameters, config.missing, rng)
    noisy = annotated & (rng.random(len(lesions)) < _NOISY)
    if not (annotated & ~noisy).any():
        noisy[:] = False
    nominal = np.array([lesion.center for lesion in lesions]) / body.scale
    locations = nominal / (WIDTH, DEPTH, LAST_LEVEL) + (0.5, 0.5, 0.0)
    # The published z also covers the head.
    locations[:, 2] = 0.28 + 0.64 * locations[:, 2]
    return RenderedVolume(
        finish(canvas, config.noise, rng), lesions, annotated, noisy, np.clip(locations, 0.0, 1.0)
    )


def make_deeplesion(
    out: str | os.PathLike,
    config: PhantomConfig,
    workers: int = 1,
    overwrite: bool = False,
    progress: bool = True,
) -> dict[str, dict[str, int]]:
    """Write a phantom dataset in DeepLesion's layout.

    ``out`` appears only when all files are written. They depend only on the settings, not on
    ``workers``.

    Args:
        out: The folder to write.
        config: The settings, which are saved in ``phantoms.json``.
        workers: Number of processes.
        overwrite: Whether to replace existing phantoms in ``out``.
        progress: Whether to show a progress bar.

    Returns:
        For each split the numbers of ``patients``, ``volumes``, ``slices``, ``lesions`` and
        ``annotated`` lesions.

    Raises:
        InputError: ``out`` contains other files, or a lesion cannot be placed in the body.
    """
    plans = plan_volumes(config)
    rows: list[DLInfoRow] = []
    lesions: list[list[LesionBoxes]] = []
    with new_folder(out, overwrite) as building:
        (building / "Images_png").mkdir()
        render = partial(_write_volume, config=config, folder=building / "Images_png")
        for annotations, boxes in render_all(render, plans, workers, progress):
            rows += annotations
            lesions.append(boxes)
        write_dl_info(building / "DL_info.csv", rows)
        for split, name in TRUTH_FILES.items():
            truth = {
                plan.name: truth_boxes(boxes, every_slice=split == 1)
                for plan, boxes in zip(plans, lesions)
                if plan.split == split
            }
            write_ground_truth(building / "harvester" / name, truth)
        summary = _summary(plans, rows, lesions)
        write_json(
            building / SETTINGS_FILE,
            {"layout": "deeplesion", "settings": asdict(config), "summary": summary},
            indent=2,
        )
    return summary


LesionBoxes = tuple[int, dict[int, tuple[float, float, float, float]]]
"""Central slice of a lesion, and its published box on every slice where it is visible."""


def _write_volume(
    plan: VolumePlan, config: PhantomConfig, folder: Path
) -> tuple[list[DLInfoRow], list[LesionBoxes]]:
    rendered = render_volume(plan, config)
    series = folder / plan.folder
    write_slices(series, rendered.hu, plan.first_slice)
    rows, boxes = [], []
    for index, lesion in enumerate(rendered.lesions):
        boxes.append((lesion.key_slice, {z: _box(e, config) for z, e in lesion.sections.items()}))
        if rendered.annotated[index]:
            location, noisy = rendered.locations[index], bool(rendered.noisy[index])
            rows.append(_row(plan, config, lesion, location, noisy))
    return sorted(rows, key=lambda row: row.key_slice), boxes


def write_slices(folder: Path, hu: np.ndarray, first: int = 1) -> list[Path]:
    """Write slices as 16-bit PNGs of HU + 32768.

    Args:
        folder: Folder of the series, which is created.
        hu: HU, shape (D, H, W).
        first: Number of the first slice.

    Returns:
        The files.
    """
    folder.mkdir(exist_ok=True)
    paths = []
    for number, image in enumerate(hu, start=first):
        path = folder / f"{number:03d}.png"
        pixels = (image.astype(np.int32) + HU_OFFSET).astype(np.uint16)
        if not cv2.imwrite(str(path), pixels, (cv2.IMWRITE_PNG_COMPRESSION, 1)):
            raise OSError(f"{path} could not be written")
        paths.append(path)
    return paths


def rounded(values: ArrayLike) -> tuple[float, ...]:
    """Round to six significant digits, as published."""
    return tuple(float(f"{value:.6g}") for value in np.ravel(values))


def published_box(
    ends: np.ndarray, padding: float, size: Sequence[int]
) -> tuple[float, float, float, float]:
    """Return the published box around RECIST diameters.

    Args:
        ends: End points (x, y) in pixels of the array, shape (4, 2).
        padding: Padding in pixels.
        size: Width and height of the image, to which the box is clipped.
    """
    points = np.reshape(rounded(ends + 1.0), (-1, 2))
    low, high = points.min(0) - padding, points.max(0) + padding
    x1, y1, x2, y2 = rounded(np.clip([low, high], 1.0, size))
    return x1, y1, x2, y2


def _box(ends: np.ndarray, config: PhantomConfig) -> tuple[float, float, float, float]:
    return published_box(ends, config.box_padding, (config.size, config.size))


def _row(
    plan: VolumePlan, config: PhantomConfig, lesion: Lesion, location: np.ndarray, noisy: bool
) -> DLInfoRow:
    ends = lesion.sections[lesion.key_slice]
    key_slice = plan.first_slice + lesion.key_slice
    long, short = rounded(np.linalg.norm(ends[::2] - ends[1::2], axis=1))
    x, y, z = rounded(location)
    return DLInfoRow(
        file_name=f"{plan.folder}_{key_slice:03d}.png",
        patient=plan.patient,
        study=plan.study,
        series=plan.series,
        key_slice=key_slice,
        measurement=rounded(ends + 1.0),
        box=_box(ends, config),
        diameters=(long, short),
        location=(x, y, z),
        lesion_type=-1 if plan.split == 1 else lesion.lesion_type,
        noisy=noisy,
        slice_range=(plan.first_slice, plan.last_slice),
        spacing=(plan.spacing, plan.spacing, plan.interval),
        image_size=(config.size, config.size),
        window=_LUNG_WINDOW if lesion.lesion_type == _LUNG else _WINDOW,
        gender=plan.gender,
        age=plan.age,
        split=plan.split,
    )


def truth_boxes(
    lesions: Sequence[LesionBoxes], every_slice: bool
) -> dict[int, list[tuple[float, ...]]]:
    """Return the boxes of a volume by slice, of every slice or of the central slices only."""
    slices: dict[int, list[tuple[float, ...]]] = {}
    for central, boxes in lesions:
        for z in sorted(boxes) if every_slice else [central]:
            slices.setdefault(z, []).append(boxes[z])
    return dict(sorted(slices.items()))


def _summary(
    plans: list[VolumePlan], rows: list[DLInfoRow], lesions: list[list[LesionBoxes]]
) -> dict[str, dict[str, int]]:
    summary = {}
    for split, name in SPLITS.items():
        mine = [(plan, boxes) for plan, boxes in zip(plans, lesions) if plan.split == split]
        summary[name] = {
            "patients": len({plan.patient for plan, _ in mine}),
            "volumes": len(mine),
            "slices": sum(plan.slices for plan, _ in mine),
            "lesions": sum(len(boxes) for _, boxes in mine),
            "annotated": sum(row.split == split for row in rows),
        }
    return summary
