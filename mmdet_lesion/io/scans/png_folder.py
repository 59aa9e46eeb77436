"""Reading of DeepLesion's folders of PNG slices."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...structures import Volume
from ...structures.triples import triple
from ..dl_info import DLInfoRow, read_dl_info
from ..png_slices import BadSliceError, read_hu
from .scan import Scan

__all__ = ["find_table", "read_png_folder"]

_TABLE = "DL_info.csv"


def read_png_folder(
    folder: Path, slices: tuple[int, int], spacing: Sequence[float] | None = None
) -> Scan:
    """Read a run of slices.

    Args:
        folder: Folder of ``{slice:03d}.png``, 16-bit, HU + 32768.
        slices: First and last slice.
        spacing: Spacing ``(x, y, z)`` in mm. The default is read from ``DL_info.csv`` next to or
            above the folder.

    Returns:
        The scan. Its origin is 0, since PNGs do not contain a position.

    Raises:
        InputError: A slice cannot be read, the slices differ in size, or the spacing is unknown.
    """
    files = [folder / f"{number:03d}.png" for number in range(slices[0], slices[1] + 1)]
    if spacing is None:
        spacing = _table_spacing(folder, slices)
    planes = []
    for file in files:
        try:
            planes.append(read_hu(file))
        except BadSliceError as error:
            raise InputError(f"{file}: {error}") from None
        if planes[-1].shape != planes[0].shape:
            height, width = planes[-1].shape
            raise InputError(
                f"{file} has {width} x {height} pixels, {files[0].name} "
                f"{planes[0].shape[1]} x {planes[0].shape[0]}; expected slices of one size"
            )
    warnings = [
        "PNG slices do not contain a position; the first voxel is the origin of world coordinates"
    ]
    volume = Volume(np.stack(planes), triple(spacing, "spacing"))
    return Scan(volume, folder, "png", slice_files=tuple(files), warnings=warnings)


def _table_spacing(folder: Path, slices: tuple[int, int]) -> tuple[float, float, float]:
    """Return the most frequent spacing in DL_info.csv for these slices, or for this series."""
    rows: Sequence[DLInfoRow] = ()
    # A link may lead out of the folder with the table, or into it.
    for path in dict.fromkeys((Path(os.path.abspath(folder)), folder.resolve())):
        table = find_table(path)
        if table is not None:
            found = _rows_by_series(table, table.stat().st_mtime_ns).get(path.name, [])
            rows = [row for row in found if min(row.spacing) > 0]
        if rows:
            break
    inside = [row for row in rows if slices[0] <= row.key_slice <= slices[1]]
    if not rows:
        raise InputError(
            f"{folder}: PNG slices do not contain a spacing, and no {_TABLE} next to or above the "
            "folder lists this series; expected --png-spacing X Y Z in mm"
        )
    return Counter(row.spacing for row in inside or rows).most_common(1)[0][0]


def find_table(folder: Path) -> Path | None:
    """Return the ``DL_info.csv`` next to a folder of slices or above it, or None."""
    tables = (parent / _TABLE for parent in Path(os.path.abspath(folder)).parents[:2])
    return next((table for table in tables if table.is_file()), None)


@lru_cache(maxsize=1)
def _rows_by_series(table: Path, modified: int) -> dict[str, list[DLInfoRow]]:
    """Read the rows of a table by folder, once for the scans of a process."""
    rows: dict[str, list[DLInfoRow]] = {}
    for row in read_dl_info(table)[0]:
        rows.setdefault(row.folder, []).append(row)
    return rows
