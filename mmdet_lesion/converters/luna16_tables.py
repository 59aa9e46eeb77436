"""LUNA16's CSVs, row by row: what is wrong with one must not spoil the others."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..io import Problem

__all__ = ["FindingRow", "read_findings", "read_series"]

_COLUMNS = ("seriesuid", "coordX", "coordY", "coordZ", "diameter_mm")


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


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a table of LUNA16")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            # Line by line: a quote that is never closed spoils one row and not all that follow.
            yield number, [cell.strip() for cell in next(csv.reader([line]))]


def read_series(path: str | os.PathLike) -> tuple[dict[str, int], list[Problem]]:
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
        if uid == _COLUMNS[0] and not lines:
            continue
        if uid in lines:
            text = f"{uid} stands in line {lines[uid]} already"
            problems.append(Problem(path.name, number, text, "row skipped", "duplicate row"))
        else:
            lines[uid] = number
    if not lines:
        raise InputError(f"{path} names no scan; expected a series UID in every line")
    return lines, problems


def read_findings(
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
    columns: list[int] | None = None
    first_lines: dict[tuple, int] = {}
    count = 0
    for number, cells in _rows(path):
        if columns is None:
            missing = [name for name in _COLUMNS if name not in cells]
            if missing:
                raise InputError(
                    f"{path} has no column {missing[0]} (line {number} holds {', '.join(cells)}); "
                    f"expected the columns {', '.join(_COLUMNS)}"
                )
            columns = [cells.index(name) for name in _COLUMNS]
            width = len(cells)
            continue
        count += 1
        try:
            row = _parse(path.name, number, cells, columns, width)
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
    if columns is None:
        raise InputError(f"{path} is empty; expected the columns {', '.join(_COLUMNS)}")
    return rows, problems, count


def _parse(file: str, line: int, cells: list[str], columns: list[int], width: int) -> FindingRow:
    if len(cells) != width:
        raise ValueError(f"{len(cells)} fields found, {width} expected")
    values = []
    for name, column in zip(_COLUMNS[1:], columns[1:]):
        try:
            value = float(cells[column])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise ValueError(f"{name} is {cells[column]!r}; expected a finite number")
        values.append(value)
    return FindingRow(file, line, cells[columns[0]], tuple(values[:3]), values[3])
