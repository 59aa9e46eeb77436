"""LUNA16's tables: nodules, irrelevant findings, the list of scans, and submissions.

Columns are found by their names, as the challenge's evaluation script finds them: ``seriesuid``,
``coordX``, ``coordY``, ``coordZ`` (world mm) and ``diameter_mm`` or ``probability``. Readers for
the evaluation refuse a file with a broken row; :func:`read_series_rows` and
:func:`read_finding_rows`, for the converter, report such rows and read the others.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .atomic import atomic_write
from .problems import Problem

__all__ = [
    "FindingRow",
    "read_finding_rows",
    "read_luna16_findings",
    "read_luna16_detections",
    "read_luna16_series",
    "read_series_rows",
    "write_luna16_detections",
    "write_luna16_series",
]

_SERIES = "seriesuid"
_POINT = ("coordX", "coordY", "coordZ")
_SEPARATORS = {"\t": "tabs", ";": "semicolons"}


@dataclass(frozen=True)
class FindingRow:
    """A nodule or an irrelevant finding.

    Args:
        file: The table.
        line: Line in it, the header being line 1.
        series: Series UID of the scan.
        center: World position ``(x, y, z)`` in mm.
        diameter: In mm; -1 in the table of irrelevant findings where nobody measured.
    """

    file: str
    line: int
    series: str
    center: tuple[float, float, float]
    diameter: float

    def problem(self, kind: str, text: str) -> Problem:
        """A problem of this row, which leaves it out."""
        return Problem(self.file, self.line, text, "row skipped", kind)


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
    lines, problems = read_series_rows(path)
    if problems:
        raise InputError(f"{path}, line {problems[0].row}: {problems[0].problem}")
    return list(lines)


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


def read_series_rows(path: str | os.PathLike) -> tuple[dict[str, int], list[Problem]]:
    """Read the list of scans, with or without a header line.

    Args:
        path: ``seriesuids.csv``.

    Returns:
        Line of every series UID in the file's order, and a problem for each that is repeated.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It names no scan.
    """
    path = Path(path)
    lines: dict[str, int] = {}
    problems = []
    for number, cells in _rows(path):
        uid = cells[0]
        if uid == _SERIES and not lines:
            continue
        if uid in lines:
            text = f"{uid} repeats line {lines[uid]}"
            problems.append(Problem(path.name, number, text, "row skipped", "duplicate row"))
        else:
            lines[uid] = number
    if not lines:
        raise InputError(f"{path} names no scan; expected a series UID in every line")
    return lines, problems


def read_finding_rows(
    path: str | os.PathLike, known: Collection[str], measured: bool
) -> tuple[list[FindingRow], list[Problem], int]:
    """Read nodules (``annotations.csv``) or irrelevant findings (``annotations_excluded.csv``).

    Args:
        path: The table.
        known: Series UIDs of the scans.
        measured: Whether every row must have a positive diameter and stand there once, as nodules
            do; the published table of irrelevant findings repeats thousands of rows.

    Returns:
        The rows of use in the file's order, the problems of the others, and the number of rows
        without blank ones.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: A column is missing.
    """
    path = Path(path)
    rows: list[FindingRow] = []
    problems: list[Problem] = []
    table = _rows(path)
    _, columns = _columns(path, table, "diameter_mm")
    first_lines: dict[tuple, int] = {}
    for number, cells in table[1:]:
        try:
            row = _parse(path.name, number, cells, columns, len(table[0][1]))
        except ValueError as error:
            problem = Problem(path.name, number, str(error), "row skipped", "broken row")
            problems.append(problem)
            continue
        first = first_lines.setdefault((row.series, row.center, row.diameter), number)
        if row.series not in known:
            problems.append(row.problem("unknown scan", f"{row.series} is not among the scans"))
        elif measured and row.diameter <= 0:
            text = f"diameter_mm is {row.diameter:g}; expected a positive number"
            problems.append(row.problem("bad diameter", text))
        elif first == number:
            rows.append(row)
        elif measured:
            problems.append(row.problem("duplicate row", f"repeats line {first}"))
    return rows, problems, len(table) - 1


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
        raise FileNotFoundError(f"{path} does not exist; expected a CSV")
    try:
        # Spreadsheets begin a file with a byte order mark.
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from None
    # Line by line: a quote that is never closed breaks one row and not all that follow.
    return [
        (number, [cell.strip() for cell in next(csv.reader([line]))])
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]


def _columns(
    path: str | os.PathLike, rows: list[tuple[int, list[str]]], last: str
) -> tuple[tuple[str, ...], list[int]]:
    """Names of the five columns and their places in the header."""
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
    return names, [header.index(name) for name in names]


def _table(path: str | os.PathLike, last: str) -> tuple[list[str], np.ndarray, list[int]]:
    """Series ``N``, numbers ``(N, 4)`` and line ``N`` of every row."""
    rows = _rows(path)
    names, columns = _columns(path, rows, last)
    short = next((line for line, row in rows[1:] if len(row) <= max(columns)), None)
    if short is not None:
        raise InputError(f"{path}, line {short} has too few cells; expected {len(rows[0][1])}")
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


def _parse(file: str, line: int, cells: list[str], columns: list[int], width: int) -> FindingRow:
    if len(cells) != width:
        raise ValueError(f"{len(cells)} fields found, {width} expected")
    values = []
    for name, column in zip((*_POINT, "diameter_mm"), columns[1:], strict=True):
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{name} is {cells[column]!r}; expected a finite number")
        values.append(value)
    x, y, z, diameter = values
    return FindingRow(file, line, cells[columns[0]], (x, y, z), diameter)
