"""Reading and writing of ``DL_info.csv``, DeepLesion's table of RECIST measurements.

Source: Yan et al., "DeepLesion: automated mining of large-scale lesion annotations and universal
lesion detection with deep learning", JMI 2018.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import atomic_write
from .csv_rows import find_columns, parse_number, read_csv_rows
from .problems import Problem

__all__ = ["COLUMNS", "LESION_TYPES", "DLInfoRow", "read_dl_info", "write_dl_info"]

LESION_TYPES = {
    1: "bone",
    2: "abdomen",
    3: "mediastinum",
    4: "liver",
    5: "lung",
    6: "kidney",
    7: "soft tissue",
    8: "pelvis",
}
"""Names of the coarse lesion types."""

# A key slice such as 000002_01_01_162.png; numbers may have more digits.
_FILE_NAME = re.compile(r"(\d{6,})_(\d{2,})_(\d{2,})_(\d{3,})\.png")


@dataclass(frozen=True)
class DLInfoRow:
    """RECIST measurement on a key slice: the 18 columns of ``DL_info.csv``.

    Coordinates are published x and y pixel numbers, from 1.

    Args:
        file_name: ``{patient}_{study}_{series}_{key slice}.png``.
        patient: Patient index.
        study: Study index.
        series: Series number.
        key_slice: Number of the annotated slice in the series' folder.
        measurement: End points ``x, y`` of the long, then of the short diameter.
        box: ``x1, y1, x2, y2``, the measurement padded by 5 pixels.
        diameters: Long and short diameter in pixels.
        location: Relative position in the body ``x, y, z``, each 0 … 1.
        lesion_type: 1 … 8, or -1 if unknown.
        noisy: Whether the annotation is marked as possibly wrong.
        slice_range: First and last published slice around the key slice.
        spacing: Spacing ``x, y, z`` in mm; z is the slice interval.
        image_size: Width and height in pixels.
        window: Lowest and highest HU of the annotator's HU window.
        gender: ``M`` or ``F``.
        age: Age in years, or NaN if unknown.
        split: 1 training, 2 validation, 3 test.
        line: Line in the file (the header is line 1), or 0 if the row was not read from a file.
    """

    file_name: str
    patient: int
    study: int
    series: int
    key_slice: int
    measurement: tuple[float, ...]
    box: tuple[float, float, float, float]
    diameters: tuple[float, float]
    location: tuple[float, float, float]
    lesion_type: int
    noisy: bool
    slice_range: tuple[int, int]
    spacing: tuple[float, float, float]
    image_size: tuple[int, int]
    window: tuple[float, float]
    gender: str
    age: float
    split: int
    line: int = 0

    @property
    def folder(self) -> str:
        """Folder of the series: ``{patient}_{study}_{series}``."""
        return self.file_name.rpartition("_")[0]


# Larger numbers of patients, studies, series and slices are errors.
_MAX_INTEGER = 10**6


def _integer(text: str) -> int:
    value = parse_number(text)
    if not value.is_integer() or abs(value) > _MAX_INTEGER:
        raise ValueError(f"found {text!r}; expected a whole number up to {_MAX_INTEGER}")
    return int(value)


def _tuple_of(kind: Callable[[str], Any], length: int) -> Callable[[str], tuple]:
    def parse(text: str) -> tuple:
        values = tuple(kind(part) for part in text.split(","))
        if len(values) != length:
            raise ValueError(f"found {text!r}; expected {length} numbers")
        return values

    return parse


def _file_name(text: str) -> str:
    if not _FILE_NAME.fullmatch(text):
        raise ValueError(f"found {text!r}; expected {{patient}}_{{study}}_{{series}}_{{slice}}.png")
    return text


def _choice(*allowed: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = _integer(text)
        if value not in allowed:
            raise ValueError(f"found {text!r}; expected one of {', '.join(map(str, allowed))}")
        return value

    return parse


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _age(text: str) -> float:
    return parse_number(text) if text.strip() else float("nan")


def _join(values: Iterable[float]) -> str:
    return ", ".join(_number(v) if v == v else "NaN" for v in values)


@dataclass(frozen=True)
class _Column:
    name: str
    field: str
    parse: Callable[[str], Any]
    format: Callable[[Any], str]


_SCHEMA = (
    _Column("File_name", "file_name", _file_name, str),
    _Column("Patient_index", "patient", _integer, str),
    _Column("Study_index", "study", _integer, str),
    _Column("Series_ID", "series", _integer, str),
    _Column("Key_slice_index", "key_slice", _integer, str),
    _Column("Measurement_coordinates", "measurement", _tuple_of(parse_number, 8), _join),
    _Column("Bounding_boxes", "box", _tuple_of(parse_number, 4), _join),
    _Column("Lesion_diameters_Pixel_", "diameters", _tuple_of(parse_number, 2), _join),
    _Column("Normalized_lesion_location", "location", _tuple_of(parse_number, 3), _join),
    _Column("Coarse_lesion_type", "lesion_type", _choice(-1, *LESION_TYPES), str),
    _Column("Possibly_noisy", "noisy", lambda t: bool(_choice(0, 1)(t)), lambda v: str(int(v))),
    _Column("Slice_range", "slice_range", _tuple_of(_integer, 2), _join),
    _Column("Spacing_mm_px_", "spacing", _tuple_of(parse_number, 3), _join),
    _Column("Image_size", "image_size", _tuple_of(_integer, 2), _join),
    _Column("DICOM_windows", "window", _tuple_of(parse_number, 2), _join),
    _Column("Patient_gender", "gender", str, str),
    _Column("Patient_age", "age", _age, lambda v: _join([v])),
    _Column("Train_Val_Test", "split", _choice(1, 2, 3), str),
)

COLUMNS: tuple[str, ...] = tuple(column.name for column in _SCHEMA)


def _parse_row(values: list[str], order: list[int], width: int, line: int) -> DLInfoRow:
    if len(values) != width:
        raise ValueError(f"{len(values)} cells found; expected {width}")
    fields = {}
    for column, index in zip(_SCHEMA, order, strict=True):
        try:
            fields[column.field] = column.parse(values[index])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{column.name}: {error}") from None
    row = DLInfoRow(**fields, line=line)
    named = tuple(int(part) for part in row.file_name[: -len(".png")].split("_"))
    numbers = (row.patient, row.study, row.series, row.key_slice)
    if named != numbers:
        raise ValueError(
            f"File_name is {row.file_name}; expected the row's patient, study, series and key "
            f"slice {numbers}"
        )
    return row


def read_dl_info(path: str | os.PathLike) -> tuple[list[DLInfoRow], list[Problem]]:
    """Read ``DL_info.csv``.

    NaN and boxes outside the image are kept. Invalid rows are skipped and reported.

    Args:
        path: The table. Columns may be in any order; additional ones are ignored.

    Returns:
        The valid rows in the file's order, and a problem for each invalid row.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is not a text file, or a column is missing.
    """
    path = Path(path)
    table = read_csv_rows(path, "DeepLesion's table of annotations")
    order = find_columns(path, table, COLUMNS)
    width = len(table[0][1])
    rows: list[DLInfoRow] = []
    problems: list[Problem] = []
    for line, values in table[1:]:
        try:
            rows.append(_parse_row(values, order, width, line))
        except ValueError as error:
            problems.append(Problem(path.name, line, str(error), "row skipped", "broken row"))
    return rows, problems


def write_dl_info(path: str | os.PathLike, rows: Iterable[DLInfoRow]) -> None:
    """Write ``DL_info.csv`` atomically, in the published column order and number format.

    Args:
        path: The table.
        rows: The rows in the order of the table.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([c.format(getattr(row, c.field)) for c in _SCHEMA])
