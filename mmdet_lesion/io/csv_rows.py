"""Line-by-line reading of CSV files."""

from __future__ import annotations

import csv
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

from ..errors import InputError

__all__ = ["find_columns", "parse_number", "read_csv_rows"]


def read_csv_rows(path: str | os.PathLike, expected: str) -> list[tuple[int, list[str]]]:
    """Read the rows of a CSV file, except blank ones.

    Args:
        path: The file.
        expected: Expected content, for the message if the file does not exist.

    Returns:
        Line number (from 1) and cells of each row. A line with invalid quotes has one cell.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is not a text file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected {expected}")
    try:
        # Spreadsheet programs write a byte order mark.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a text file: {error}") from None
    return [(number, _cells(line)) for number, line in enumerate(lines, 1) if line.strip()]


def find_columns(
    path: str | os.PathLike, rows: list[tuple[int, list[str]]], names: Sequence[str]
) -> list[int]:
    """Return the index of each named column in the header, which is the first row.

    Raises:
        InputError: A column is missing.
    """
    header = rows[0][1] if rows else []
    missing = [name for name in names if name not in header]
    if missing:
        found = textwrap.shorten(", ".join(header), width=500, placeholder=" …") or "nothing"
        raise InputError(
            f"{path} has no column {missing[0]!r} (found {found}); expected the comma-separated "
            f"columns {', '.join(names)}"
        )
    return [header.index(name) for name in names]


def parse_number(text: str) -> float:
    """Convert a cell to a float; unlike ``float``, reject underscores and digits of other scripts.

    Raises:
        ValueError: The cell is not a number.
    """
    if "_" in text or not text.isascii():
        raise ValueError(f"found {text[:80]!r}; expected a number")
    return float(text)


def _cells(line: str) -> list[str]:
    # Lines are parsed separately, so that an unclosed quote breaks only one row.
    try:
        return [cell.strip() for cell in next(csv.reader([line], strict=True))]
    except csv.Error:
        return [line]
