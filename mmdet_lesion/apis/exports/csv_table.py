"""Export of ``lesions.csv``, with one row per lesion."""

from __future__ import annotations

import csv
from pathlib import Path

from ...io.atomic import atomic_write
from ...io.scans import Scan
from ..lesions import ScanResult

__all__ = ["COLUMNS", "write_csv"]

#: Columns of the file.
COLUMNS = [
    "path", "series_uid", "id", "label", "score", "x_mm", "y_mm", "z_mm", "size_x_mm", "size_y_mm",
    "size_z_mm", "key_slice", "first_slice", "last_slice", "key_file", "x1", "y1", "z1", "x2", "y2",
    "z2",
]  # fmt: skip
# First characters of a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write a row for each lesion; ``x1 … z2`` are in voxels of the original array.

    Texts that spreadsheet programs would execute get a leading apostrophe. The notice of a model is
    the name of an additional, empty column, so that tables without lesions have it, too.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file,
    ):
        writer = csv.writer(file)
        notice = [] if result.notice is None else [_text(result.notice)]
        writer.writerow([*COLUMNS, *notice])
        for lesion in result.lesions:
            writer.writerow(
                [
                    _text(result.scan["path"]),
                    _text(result.scan["series_uid"]),
                    lesion.id,
                    _text(lesion.label),
                    lesion.score,
                    *lesion.center_world,
                    *lesion.size_mm,
                    lesion.key_slice,
                    *lesion.slice_range,
                    _text(lesion.key_file),
                    *lesion.box_voxels,
                    *("" for _ in notice),
                ]
            )
    return []


def _text(value: str | None) -> str:
    """Return a cell that spreadsheet programs do not execute as a formula."""
    text = value or ""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text
