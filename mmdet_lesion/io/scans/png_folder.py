"""Reading of DeepLesion's folders of PNG slices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ...structures import Volume
from ...structures.triples import triple
from ..dl_info import read_dl_info
from ..png_slices import BadSliceError, read_hu
from .scan import Scan

__all__ = ["read_png_folder"]

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
    folder = folder.resolve()
    tables = [parent / _TABLE for parent in folder.parents[:2] if (parent / _TABLE).is_file()]
    unknown = (
        f"{folder}: PNG slices do not contain a spacing, and no {_TABLE} next to or above the "
        "folder lists this series; expected --png-spacing X Y Z in mm"
    )
    if not tables:
        raise InputError(unknown)
    rows = [row for row in read_dl_info(tables[0])[0] if row.folder == folder.name]
    rows = [row for row in rows if min(row.spacing) > 0]
    inside = [row for row in rows if slices[0] <= row.key_slice <= slices[1]]
    if not rows:
        raise InputError(unknown)
    return Counter(row.spacing for row in inside or rows).most_common(1)[0][0]
