"""``DL_info.csv``, DeepLesion's table of RECIST measurements, one per row.

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

from ..errors import InputError
from .atomic import atomic_write
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

# A key slice such as 000002_01_01_162.png; real patients and slices have more digits at times.
_FILE_NAME = re.compile(r"(\d{6,})_(\d{2,})_(\d{2,})_(\d{3,})\.png")


@dataclass(frozen=True)
class DLInfoRow:
    """RECIST measurement on a key slice, all 18 columns of ``DL_info.csv``.

    Coordinates are published ones: pixel numbers from 1, x and y.

    Args:
        file_name: ``{patient}_{study}_{series}_{key slice}.png``.
        patient: Patient index.
        study: Study index.
        series: Series number.
        key_slice: Annotated slice, counted in the series' folder.
        measurement: End points ``x, y`` of the long, then of the short diameter.
        box: ``x1, y1, x2, y2``, the measurement padded by 5 pixels.
        diameters: Long and short diameter in pixels.
        location: Position in the body ``x, y, z``, relative, each 0…1.
        lesion_type: 1…8, or -1 where unknown.
        noisy: Whether the annotation is marked as possibly wrong.
        slice_range: First and last slice that are published around the key slice.
        spacing: ``x, y, z`` in mm; z is the slice interval.
        image_size: Width and height.
        window: Lowest and highest HU of the reader's window.
        gender: ``M`` or ``F``.
        age: In years, NaN where unknown.
        split: 1 training, 2 validation, 3 test.
        line: Line in the file, the header being line 1; 0 for a row that was not read.
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


def _integer(text: str) -> int:
    value = float(text)
    if not value.is_integer():
        raise ValueError(f"{text!r} is not a whole number")
    return int(value)


def _tuple_of(kind: Callable[[str], Any], length: int) -> Callable[[str], tuple]:
    def parse(text: str) -> tuple:
        values = tuple(kind(part) for part in text.split(","))
        if len(values) != length:
            raise ValueError(f"{text!r} holds {len(values)} numbers, not {length}")
        return values

    return parse


def _file_name(text: str) -> str:
    if not _FILE_NAME.fullmatch(text):
        raise ValueError(f"{text!r} is not {{patient}}_{{study}}_{{series}}_{{slice}}.png")
    return text


def _choice(*allowed: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = _integer(text)
        if value not in allowed:
            raise ValueError(f"{text!r} is none of {', '.join(map(str, allowed))}")
        return value

    return parse


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _age(text: str) -> float:
    return float(text) if text.strip() else float("nan")


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
    _Column("Measurement_coordinates", "measurement", _tuple_of(float, 8), _join),
    _Column("Bounding_boxes", "box", _tuple_of(float, 4), _join),
    _Column("Lesion_diameters_Pixel_", "diameters", _tuple_of(float, 2), _join),
    _Column("Normalized_lesion_location", "location", _tuple_of(float, 3), _join),
    _Column("Coarse_lesion_type", "lesion_type", _choice(-1, *LESION_TYPES), str),
    _Column("Possibly_noisy", "noisy", lambda t: bool(_choice(0, 1)(t)), lambda v: str(int(v))),
    _Column("Slice_range", "slice_range", _tuple_of(_integer, 2), _join),
    _Column("Spacing_mm_px_", "spacing", _tuple_of(float, 3), _join),
    _Column("Image_size", "image_size", _tuple_of(_integer, 2), _join),
    _Column("DICOM_windows", "window", _tuple_of(float, 2), _join),
    _Column("Patient_gender", "gender", str, str),
    _Column("Patient_age", "age", _age, lambda v: _join([v])),
    _Column("Train_Val_Test", "split", _choice(1, 2, 3), str),
)

COLUMNS: tuple[str, ...] = tuple(column.name for column in _SCHEMA)


def _fields(line: str) -> list[str]:
    # Line by line, so that a quote that is never closed spoils one row and not all that follow.
    return [field.strip() for field in next(csv.reader([line], strict=True), [])]


def _parse_row(values: list[str], order: list[int], line: int) -> DLInfoRow:
    fields = {}
    for column, index in zip(_SCHEMA, order, strict=True):
        try:
            fields[column.field] = column.parse(values[index])
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{column.name}: {error}") from None
    row = DLInfoRow(**fields, line=line)
    named = tuple(int(part) for part in row.file_name[: -len(".png")].split("_"))
    told = (row.patient, row.study, row.series, row.key_slice)
    if named != told:
        raise ValueError(
            f"File_name {row.file_name} does not agree with patient, study, series and key slice "
            f"{told}"
        )
    return row


def read_dl_info(path: str | os.PathLike) -> tuple[list[DLInfoRow], list[Problem]]:
    """Read ``DL_info.csv``.

    NaN and boxes outside the image are read as they stand; rows that cannot be read are left out
    and reported.

    Args:
        path: The table. Columns may stand in any order, others may stand beside them.

    Returns:
        The rows in the file's order, and a problem for each row that is no row of the table.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no text, or a column is missing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist; expected DeepLesion's table of annotations"
        )
    try:
        # The BOM is what spreadsheet programs put in front.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from None
    rows: list[DLInfoRow] = []
    problems: list[Problem] = []
    lines = text.split("\n")
    header = _fields(lines[0])
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise InputError(
            f"{path} has no column {missing[0]} (line 1 holds {', '.join(header) or 'nothing'}); "
            f"expected the {len(COLUMNS)} columns of DL_info.csv"
        )
    order = [header.index(name) for name in COLUMNS]
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        try:
            values = _fields(line)
            if len(values) != len(header):
                raise ValueError(f"{len(values)} fields found, {len(header)} expected")
            rows.append(_parse_row(values, order, number))
        except (ValueError, csv.Error) as error:
            problems.append(Problem(path.name, number, str(error), "row skipped", "broken row"))
    return rows, problems


def write_dl_info(path: str | os.PathLike, rows: Iterable[DLInfoRow]) -> None:
    """Write ``DL_info.csv`` atomically, in the published column order and number format.

    Args:
        path: The table to write.
        rows: The annotations, in the order to be written.
    """
    with (
        atomic_write(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            writer.writerow([c.format(getattr(row, c.field)) for c in _SCHEMA])
