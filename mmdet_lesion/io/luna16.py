"""LUNA16's tables: nodules, excluded findings, the list of scans, and submissions.

Columns are found by their names, as the challenge's evaluation script finds them: ``seriesuid``,
``coordX``, ``coordY``, ``coordZ`` (world mm) and ``diameter_mm`` or ``probability``.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import numpy as np

from ..errors import InputError
from .atomic import atomic_write

__all__ = [
    "read_luna16_findings",
    "read_luna16_detections",
    "read_luna16_series",
    "write_luna16_detections",
    "write_luna16_series",
]

_SERIES = "seriesuid"
_POINT = ("coordX", "coordY", "coordZ")
_SEPARATORS = {"\t": "tabs", ";": "semicolons"}


def read_luna16_series(path: str | os.PathLike) -> list[str]:
    """Read the scans to evaluate (``seriesuids.csv``): one in a line, with or without a header.

    Args:
        path: The file.

    Returns:
        Their identifiers in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A scan is listed twice, or there is none.
    """
    series: dict[str, int] = {}
    for line, row in _rows(path):
        name = row[0]
        if name == _SERIES and not series:
            continue
        if name in series:
            raise InputError(
                f"{path}, line {line} lists the series {name!r} of line {series[name]} again; "
                "expected every scan once"
            )
        series[name] = line
    if not series:
        raise InputError(f"{path} lists no series; expected one in every line")
    return list(series)


def read_luna16_findings(path: str | os.PathLike, *, unique: bool) -> dict[str, np.ndarray]:
    """Read nodules (``annotations.csv``) or findings (``annotations_excluded.csv``).

    Args:
        path: The table.
        unique: Whether a repeated row is a mistake. In the published table of excluded findings
            many rows are repeated, and change nothing.

    Returns:
        ``{series: (n, 4) float64}`` rows ``[x, y, z, diameter]``.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A column is missing, a value is no finite number, or (``unique``) a row is
            repeated.
    """
    series, values, lines = _table(path, "diameter_mm")
    if unique:
        _refuse_repeated(path, series, values, lines)
    return _by_series(series, values)


def read_luna16_detections(
    path: str | os.PathLike, known: Collection[str]
) -> dict[str, np.ndarray]:
    """Read a submission.

    Args:
        path: The table.
        known: The scans that are evaluated.

    Returns:
        ``{series: (n, 4) float64}`` rows ``[x, y, z, probability]`` in the file's order.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A column is missing, a value is no finite number, a probability is outside
            [0, 1], a series is not known, or a row is repeated.
    """
    series, values, lines = _table(path, "probability")
    outside = (values[:, 3] < 0) | (values[:, 3] > 1)
    if outside.any():
        bad = int(np.argmax(outside))
        raise InputError(
            f"{path}, line {lines[bad]} has the probability {values[bad, 3]:g}; expected a number "
            "from 0 to 1"
        )
    known = set(known)
    strange = next((i for i, name in enumerate(series) if name not in known), None)
    if strange is not None:
        raise InputError(
            f"{path}, line {lines[strange]} has the series {series[strange]!r}, which is not among "
            f"the {len(known)} scans to evaluate; expected one of them"
        )
    _refuse_repeated(path, series, values, lines)
    return _by_series(series, values)


def write_luna16_detections(path: str | os.PathLike, detections: Mapping[str, np.ndarray]) -> None:
    """Write a submission atomically; numbers are written so that they are read back exactly.

    Args:
        path: The table.
        detections: ``{series: (n, 4)}`` rows ``[x, y, z, probability]``, world mm.
    """
    lines = [",".join((_SERIES, *_POINT, "probability"))]
    for series, rows in detections.items():
        values = np.asarray(rows, dtype=np.float64).reshape(-1, 4).tolist()
        lines += [",".join((series, *map(repr, row))) for row in values]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_luna16_series(path: str | os.PathLike, series: Iterable[str]) -> None:
    """Write a list of scans atomically, one in a line."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in series), encoding="utf-8")


def _rows(path: str | os.PathLike) -> list[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a CSV")
    try:
        # Spreadsheets begin a file with a byte order mark.
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [
                (reader.line_num, [cell.strip() for cell in row])
                for row in reader
                if any(map(str.strip, row))
            ]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no CSV of text: {error}") from None


def _table(path: str | os.PathLike, last: str) -> tuple[list[str], np.ndarray, list[int]]:
    """Series ``N``, numbers ``(N, 4)`` and line ``N`` of every row."""
    rows = _rows(path)
    names = (_SERIES, *_POINT, last)
    if not rows:
        raise InputError(f"{path} is empty; expected the columns {', '.join(names)}")
    header = rows[0][1]
    missing = [name for name in names if name not in header]
    if missing:
        text = ",".join(header)
        for character, word in _SEPARATORS.items():
            if character in text and len(header) == 1:
                raise InputError(f"{path} is separated by {word}; expected commas")
        raise InputError(
            f"{path} has no column {missing[0]!r} (found {', '.join(header)}); expected the "
            f"columns {', '.join(names)}"
        )
    columns = [header.index(name) for name in names]
    short = next((line for line, row in rows[1:] if len(row) <= max(columns)), None)
    if short is not None:
        raise InputError(f"{path}, line {short} has too few cells; expected {len(header)}")
    lines = [line for line, _ in rows[1:]]
    series = [row[columns[0]] for _, row in rows[1:]]
    cells = [[row[column] for column in columns[1:]] for _, row in rows[1:]]
    try:
        values = np.array([list(map(float, row)) for row in cells]).reshape(-1, 4)
    except ValueError:
        values = np.array([[_number(cell) for cell in row] for row in cells])
    wrong = ~np.isfinite(values)
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        raise InputError(
            f"{path}, line {lines[row]} has the {names[1:][column]} {cells[row][column]!r}; "
            "expected a finite number"
        )
    return series, values, lines


def _number(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return float("nan")


def _refuse_repeated(
    path: str | os.PathLike, series: list[str], values: np.ndarray, lines: list[int]
) -> None:
    seen: dict[tuple, int] = {}
    for line, name, row in zip(lines, series, values.tolist(), strict=True):
        first = seen.setdefault((name, *row), line)
        if first != line:
            raise InputError(f"{path}, line {line} repeats line {first}; expected every row once")


def _by_series(series: list[str], values: np.ndarray) -> dict[str, np.ndarray]:
    rows: dict[str, list[int]] = {}
    for number, name in enumerate(series):
        rows.setdefault(name, []).append(number)
    return {name: values[numbers] for name, numbers in rows.items()}
