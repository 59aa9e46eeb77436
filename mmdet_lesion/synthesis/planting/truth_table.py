"""Table of all planted lesions."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...io.atomic import atomic_write

__all__ = ["COLUMNS", "write_truth_table"]

COLUMNS = (
    *("set", "scan", "series", "number", "annotated", "tissue", "kind", "shape"),
    *("coordX", "coordY", "coordZ", "diameter_mm", "contrast_hu"),
    *("x1", "y1", "z1", "x2", "y2", "z2", "key_slice", "long_mm", "short_mm", "background"),
)


def write_truth_table(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write one row for each planted lesion, annotated or not.

    ``scan`` is the name of the scan's record, ``series`` its UID in LUNA16's layout. Boxes and the
    key slice are in voxels of the scan with axes left, posterior and superior, half-open, from 0.

    Args:
        path: The table.
        records: Records of :meth:`.task.PlantingTask.convert`.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for record in records:
            for lesion in record["lesions"]:
                writer.writerow(_row(record, lesion))


def _row(record: Mapping[str, Any], lesion: Mapping[str, Any]) -> list[Any]:
    ends = np.array(lesion["sections"][str(lesion["key_slice"])]["recist"])
    pixel = record["geometry"]["spacing"][:2]
    long, short = np.linalg.norm((ends[::2] - ends[1::2]) * pixel, axis=1)
    return [
        record["split"],
        record["name"],
        record["uid"],
        lesion["number"],
        int(lesion["annotated"]),
        lesion["tissue"],
        lesion["kind"],
        lesion["shape"],
        *lesion["center_world"],
        lesion["diameter_mm"],
        lesion["contrast"],
        *(int(value) for value in lesion["bbox_3d"]),
        lesion["key_slice"],
        f"{long:.4g}",
        f"{short:.4g}",
        record["source"],
    ]
