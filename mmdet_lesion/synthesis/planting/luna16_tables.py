"""LUNA16's tables of planted lesions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..luna16 import COLUMNS, table_row, write_lines

__all__ = ["write_luna16_tables"]


def write_luna16_tables(out: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write the tables of each set.

    ``annotations.csv`` contains the annotated lesions and those of the scans themselves,
    ``annotations_complete.csv`` all of them; there are no irrelevant findings in
    ``annotations_excluded.csv``.

    Args:
        out: Folder with a folder of each set.
        records: Records of :meth:`.task.PlantingTask.convert`.
    """
    sets: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        sets[record["split"]].append(record)
    header = ",".join(COLUMNS)
    for name, members in sets.items():
        rows = [
            (
                table_row(one["uid"], lesion["center_world"], lesion["diameter_mm"]),
                lesion["annotated"],
            )
            for one in members
            for lesion in one["lesions"]
        ]
        rows += [
            (table_row(one["uid"], sphere[:3], sphere[3]), True)
            for one in members
            for sphere in one["known"]
        ]
        shown = sorted(row for row, annotated in rows if annotated)
        write_lines(out / name / "annotations.csv", [header, *shown])
        write_lines(
            out / name / "annotations_complete.csv", [header, *sorted(row for row, _ in rows)]
        )
        write_lines(out / name / "annotations_excluded.csv", [header])
        write_lines(out / name / "seriesuids.csv", sorted(one["uid"] for one in members))
