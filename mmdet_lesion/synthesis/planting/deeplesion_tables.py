"""DeepLesion's tables of planted lesions, as :mod:`~mmdet_lesion.synthesis.deeplesion` has them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...io.dl_info import DLInfoRow, write_dl_info
from ...io.harvester import write_ground_truth
from ...structures import Geometry
from ..deeplesion import SPLITS, TRUTH_FILES, LesionBoxes, published_box, rounded, truth_boxes
from .tissue import LUNG

__all__ = ["write_deeplesion_tables"]

_NUMBERS = {name: number for number, name in SPLITS.items()}
_LUNG, _WINDOW, _LUNG_WINDOW = 5, (-175.0, 275.0), (-1500.0, 500.0)
# Padding of the published boxes in images of 512 pixels.
_PADDING = 5.0 / 512.0


def write_deeplesion_tables(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write ``DL_info.csv`` with the annotated lesions, and complete truth in ``harvester/``.

    A scan is one sub-volume. The lesion type is 5 (lung) or -1 (unknown). The normalized location
    is that in the image, not in the body.

    Args:
        out: The folder of the dataset.
        records: Records of :meth:`.task.PlantingTask.convert`.
    """
    rows: list[DLInfoRow] = []
    truth: dict[int, dict[str, dict]] = {number: {} for number in SPLITS}
    for record in records:
        depth = record["geometry"]["shape"][0]
        lesions: list[LesionBoxes] = []
        for lesion in record["lesions"]:
            key = _slice(record, lesion["key_slice"])
            boxes = {
                _slice(record, int(z)): _box(record, section)
                for z, section in lesion["sections"].items()
            }
            lesions.append((key, dict(sorted(boxes.items()))))
            if lesion["annotated"]:
                rows.append(_row(record, lesion))
        lesions += [_sphere(record, sphere) for sphere in record["known"]]
        number = _NUMBERS[record["split"]]
        name = f"{record['name']}_001-{depth:03d}"
        truth[number][name] = truth_boxes(lesions, every_slice=number == 1)
    write_dl_info(out / "DL_info.csv", sorted(rows, key=lambda row: row.file_name))
    for number, name in TRUTH_FILES.items():
        write_ground_truth(out / "harvester" / name, truth[number])


def _slice(record: Mapping[str, Any], z: int) -> int:
    """Return the index of a slice in the order of the files."""
    return record["geometry"]["shape"][0] - 1 - z if record["flipped"] else z


def _box(
    record: Mapping[str, Any], section: Mapping[str, Any]
) -> tuple[float, float, float, float]:
    _, height, width = record["geometry"]["shape"]
    ends = section["recist"]
    if ends is None:
        x1, y1, x2, y2 = section["box"]
        ends = [[x1, y1], [x2 - 1, y2 - 1]]
    return published_box(np.array(ends, dtype=np.float64), _PADDING * width, (width, height))


def _sphere(record: Mapping[str, Any], sphere: Sequence[float]) -> LesionBoxes:
    """Return the boxes of a lesion of the scan itself, of which a sphere is known."""
    geometry = Geometry.from_dict(record["geometry"])
    depth, height, width = geometry.shape
    (low_x, low_y, low_z), (high_x, high_y, high_z) = geometry.boxes_around_spheres([sphere])[
        0
    ].reshape(2, 3)
    middle, half = (low_z + high_z) / 2, (high_z - low_z) / 2
    center = np.array([low_x + high_x, low_y + high_y]) / 2
    boxes = {}
    for z in range(max(0, math.floor(low_z)), min(depth, math.ceil(high_z))):
        share = 1 - ((z + 0.5 - middle) / half) ** 2
        radius = math.sqrt(max(share, 0.0)) * np.array([high_x - low_x, high_y - low_y]) / 2
        # Centers of the pixels at the ends.
        ends = np.array([center - radius, center + radius - 1])
        if share > 0 and (radius >= 0.5).all():
            boxes[_slice(record, z)] = published_box(ends, _PADDING * width, (width, height))
    key = _slice(record, min(max(int(middle), 0), depth - 1))
    boxes.setdefault(key, published_box(np.array([center - 1, center]), 1.0, (width, height)))
    return key, dict(sorted(boxes.items()))


def _row(record: Mapping[str, Any], lesion: Mapping[str, Any]) -> DLInfoRow:
    depth, height, width = record["geometry"]["shape"]
    spacing = rounded(record["geometry"]["spacing"])
    section = lesion["sections"][str(lesion["key_slice"])]
    ends = np.array(section["recist"], dtype=np.float64)
    key = _slice(record, lesion["key_slice"])
    patient, study, series = (int(part) for part in record["name"].split("_"))
    long, short = rounded(np.linalg.norm(ends[::2] - ends[1::2], axis=1))
    x1, y1, z1, x2, y2, z2 = lesion["bbox_3d"]
    middle = ((x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (key + 0.5) / depth)
    x, y, z = rounded(np.clip(middle, 0, 1))
    number = _NUMBERS[record["split"]]
    is_lung = lesion["tissue"] == LUNG
    return DLInfoRow(
        file_name=f"{record['name']}_{key + 1:03d}.png",
        patient=patient,
        study=study,
        series=series,
        key_slice=key + 1,
        measurement=rounded(ends + 1.0),
        box=_box(record, section),
        diameters=(long, short),
        location=(x, y, z),
        lesion_type=_LUNG if is_lung and number != 1 else -1,
        noisy=False,
        slice_range=(1, depth),
        spacing=(spacing[0], spacing[1], spacing[2]),
        image_size=(width, height),
        window=_LUNG_WINDOW if is_lung else _WINDOW,
        gender="",
        age=math.nan,
        split=number,
    )
