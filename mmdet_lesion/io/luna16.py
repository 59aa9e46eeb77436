"""LUNA16's tables: nodules, irrelevant findings, the list of scans, and submissions.

Columns are matched by name, as in the challenge's evaluation script: ``seriesuid``, ``coordX``,
``coordY``, ``coordZ`` (world mm) and ``diameter_mm`` or ``probability``. The evaluation's readers
reject a file with an invalid row; :func:`read_series_rows` and :func:`read_finding_rows`, for the
converter, report such rows and skip them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import InputError
from .atomic import atomic_write
from .csv_rows import find_columns, parse_number, read_csv_rows
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
_DUPLICATE = "duplicate row"


@dataclass(frozen=True)
class FindingRow:
    """Nodule or irrelevant finding.

    Args:
        file: Name of the table.
        line: Line in the table; the header is line 1.
        series: Series UID of the scan.
        center: World position ``(x, y, z)`` in mm.
        diameter: Diameter in mm; -1 for unmeasured irrelevant findings.
    """

    file: str
    line: int
    series: str
    center: tuple[float, float, float]
    diameter: float

    def problem(self, kind: str, text: str) -> Problem:
        """Return a problem because of which this row is skipped."""
        return Problem(self.file, self.line, text, "row skipped", kind)


def read_luna16_series(path: str | os.PathLike) -> list[str]:
    """Read the scans to evaluate (``seriesuids.csv``), one per line, with or without a header.

    Args:
        path: The file.

    Returns:
        Series UIDs in the file's order.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: A scan is listed twice, or no scan is listed.
    """
    lines, problems = read_series_rows(path)
    _raise_first(path, problems)
    return list(lines)


def read_luna16_findings(path: str | os.PathLike, *, unique: bool) -> dict[str, np.ndarray]:
    """Read nodules (``annotations.csv``) or irrelevant findings (``annotations_excluded.csv``).

    Args:
        path: The table.
        unique: Whether a repeated row is an error. Otherwise it is read once; the published table
            of irrelevant findings repeats many rows.

    Returns:
        Rows ``[x, y, z, diameter]`` of each series, shape (N, 4), float64.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: A column is missing, a value is not a finite number, a diameter is 0, or
            (``unique``) negative, or (``unique``) a row is repeated.
    """

    def check(series: str, diameter: float) -> tuple[str, str] | None:
        # Irrelevant findings that nobody measured have a diameter of -1.
        if diameter > 0 or (not unique and diameter == -1):
            return None
        return "bad diameter", f"diameter_mm is {diameter:g}; expected a positive number"

    rows, problems = _read_points(path, "diameter_mm", check)
    _raise_first(path, [p for p in problems if unique or p.kind != _DUPLICATE])
    return _group_by_series(rows)


def read_luna16_detections(
    path: str | os.PathLike, known: Collection[str]
) -> dict[str, np.ndarray]:
    """Read a submission.

    Args:
        path: The table.
        known: Series UIDs of the scans to evaluate.

    Returns:
        Rows ``[x, y, z, probability]`` of each series in the file's order, shape (N, 4), float64.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: A column is missing, a value is not a finite number, a probability is outside
            [0, 1], a series is not in ``known``, or a row is repeated.
    """
    known = set(known)

    def check(series: str, probability: float) -> tuple[str, str] | None:
        if not 0 <= probability <= 1:
            return "bad probability", f"probability is {probability:g}; expected 0 to 1"
        return _check_series(series, known)

    rows, problems = _read_points(path, "probability", check)
    _raise_first(path, problems)
    return _group_by_series(rows)


def read_series_rows(path: str | os.PathLike) -> tuple[dict[str, int], list[Problem]]:
    """Read the list of scans, one per line, with or without a header.

    Args:
        path: ``seriesuids.csv``.

    Returns:
        Line of each series UID in the file's order, and a problem for each repeated one.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: No scan is listed.
    """
    path = Path(path)
    lines: dict[str, int] = {}
    problems = []
    for number, (uid, *_) in read_csv_rows(path, "a CSV with one series UID per line"):
        if uid == _SERIES and not lines:
            continue
        if lines.setdefault(uid, number) != number:
            text = f"{uid} repeats line {lines[uid]}"
            problems.append(Problem(path.name, number, text, "row skipped", _DUPLICATE))
    if not lines:
        raise InputError(f"{path} lists no scan; expected one series UID per line")
    return lines, problems


def read_finding_rows(
    path: str | os.PathLike, known: Collection[str], measured: bool
) -> tuple[list[FindingRow], list[Problem], int]:
    """Read nodules (``annotations.csv``) or irrelevant findings (``annotations_excluded.csv``).

    Args:
        path: The table.
        known: Series UIDs of the scans.
        measured: Whether each row must have a positive diameter and be unique, as for nodules.
            Otherwise repeated rows are skipped without a problem; the published table of
            irrelevant findings repeats thousands of rows.

    Returns:
        The valid rows in the file's order, a problem for each invalid row, and the number of rows,
        without blank ones.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: A column is missing.
    """

    def check(series: str, diameter: float) -> tuple[str, str] | None:
        problem = _check_series(series, known)
        if problem is None and measured and diameter <= 0:
            problem = "bad diameter", f"diameter_mm is {diameter:g}; expected a positive number"
        return problem

    points, problems = _read_points(path, "diameter_mm", check)
    count = len(points) + len(problems)
    if not measured:
        problems = [problem for problem in problems if problem.kind != _DUPLICATE]
    name = Path(path).name
    rows = [FindingRow(name, line, row[0], row[1:4], row[4]) for row, line in points.items()]
    return rows, problems, count


def write_luna16_detections(path: str | os.PathLike, detections: Mapping[str, np.ndarray]) -> None:
    """Write a submission atomically and without loss of precision.

    Args:
        path: The table.
        detections: Rows ``[x, y, z, probability]`` (world mm) of each series, shape (N, 4).
    """
    lines = [",".join((_SERIES, *_POINT, "probability"))]
    for series, rows in detections.items():
        values = np.asarray(rows, dtype=np.float64).reshape(-1, 4).tolist()
        lines += [",".join((series, *map(repr, row))) for row in values]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_luna16_series(path: str | os.PathLike, series: Iterable[str]) -> None:
    """Write a list of scans atomically, one per line."""
    with atomic_write(path) as temporary:
        temporary.write_text("".join(f"{name}\n" for name in series), encoding="utf-8")


_Point = tuple[str, float, float, float, float]


def _read_points(
    path: str | os.PathLike,
    last: str,
    check: Callable[[str, float], tuple[str, str] | None] = lambda series, value: None,
) -> tuple[dict[_Point, int], list[Problem]]:
    """Read a table of points in scans.

    Args:
        path: The table.
        last: Name of the column after the coordinates.
        check: Returns kind and text of the problem of a series UID and a number of this column.

    Returns:
        The line of each valid row ``(series, x, y, z, last)`` in the file's order, and a problem
        for each invalid or repeated row.
    """
    path = Path(path)
    names = (_SERIES, *_POINT, last)
    table = read_csv_rows(path, f"a CSV with the columns {', '.join(names)}")
    columns = find_columns(path, table, names)
    width = len(table[0][1])
    points: dict[_Point, int] = {}
    problems = []
    for line, cells in table[1:]:
        try:
            point = _parse(cells, names, columns, width)
            problem = check(point[0], point[4])
        except ValueError as error:
            problem = "broken row", str(error)
        if problem is None and (first := points.setdefault(point, line)) != line:
            problem = _DUPLICATE, f"repeats line {first}; expected unique rows"
        if problem is not None:
            kind, text = problem
            problems.append(Problem(path.name, line, text, "row skipped", kind))
    return points, problems


def _parse(cells: list[str], names: tuple[str, ...], columns: list[int], width: int) -> _Point:
    if len(cells) != width:
        raise ValueError(f"{len(cells)} cells found; expected {width}")
    values = []
    for name, column in zip(names[1:], columns[1:]):
        try:
            value = parse_number(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{name} is {cells[column]!r}; expected a finite number")
        values.append(value)
    x, y, z, number = values
    return cells[columns[0]], x, y, z, number


def _check_series(series: str, known: Collection[str]) -> tuple[str, str] | None:
    if series in known:
        return None
    return "unknown scan", f"{_SERIES} is {series!r}; expected one of the {len(known)} listed scans"


def _raise_first(path: str | os.PathLike, problems: list[Problem]) -> None:
    if problems:
        raise InputError(f"{path}, line {problems[0].row}: {problems[0].problem}")


def _group_by_series(points: Iterable[_Point]) -> dict[str, np.ndarray]:
    rows: dict[str, list] = {}
    for series, *values in points:
        rows.setdefault(series, []).append(values)
    return {series: np.array(values) for series, values in rows.items()}
