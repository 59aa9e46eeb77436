"""One folder of PNG slices to volumes of the store: the work of one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...io import SUFFIX, Problem, read_json, save_volume, write_json
from ...io.png_slices import BadSliceError, contiguous_runs, list_slices, read_hu
from ...structures import Grid, Volume
from .marks import Mark, valid_spacing

__all__ = [
    "IMAGES",
    "SeriesTask",
    "contiguous_runs",
    "convert_series",
    "list_slices",
    "read_record",
    "volume_name",
]

IMAGES = "Images_png"

_SAME_SPACING = 1e-3

Record = dict[str, Any]


def volume_name(folder: str, first: int, last: int) -> str:
    """``{patient}_{study}_{series}_{first:03d}-{last:03d}``, as Lesion Harvester names them."""
    return f"{folder}_{first:03d}-{last:03d}"


@dataclass(frozen=True)
class SeriesTask:
    """What :func:`convert_series` needs to know.

    Args:
        folder: ``{patient}_{study}_{series}``.
        raw: The raw folder.
        out: The folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        slices: ``(slice, file size)`` of every PNG, sorted.
        others: Names of PNGs that are no slices.
        marks: All rows of this series.
        stale: Files of earlier, unfinished runs, to be removed first.
    """

    folder: str
    raw: Path
    out: Path
    spacing: tuple[float, float, float]
    slices: tuple[tuple[int, int], ...]
    others: tuple[str, ...]
    marks: tuple[Mark, ...]
    stale: tuple[Path, ...] = ()

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on, beside the settings; plain values, for JSON."""
        marks = [
            [m.file, m.row.line, m.row.key_slice, list(m.row.slice_range), repr(m.row.spacing)]
            for m in self.marks
        ]
        return {"slices": [list(s) for s in self.slices], "others": [*self.others], "marks": marks}

    @property
    def record_path(self) -> Path:
        """The file that tells that the series is complete."""
        return self.out / "records" / f"{self.folder}.json"

    def png(self, number: int) -> str:
        """Path of a slice within the raw folder."""
        return f"{IMAGES}/{self.folder}/{number:03d}.png"

    def line_of(self, numbers: Sequence[int]) -> int | None:
        """Line of the first row whose key slice is among the slices."""
        return next((m.row.line for m in self.marks if m.row.key_slice in numbers), None)


def read_record(task: SeriesTask) -> Record | None:
    """The record of a series that an earlier run completed from the same files, or None."""
    if not task.record_path.is_file():
        return None
    record = read_json(task.record_path)
    if record["inputs"] != task.inputs:
        return None
    for volume in record["volumes"]:
        path = task.out / "volumes" / volume["file_name"]
        if not path.is_file() or path.stat().st_size != volume["size"]:
            return None
    return record


def _read_slices(task: SeriesTask, run: list[int]) -> tuple[dict[int, np.ndarray], list[Problem]]:
    """The good slices of a run, all of the same size."""
    slices: dict[int, np.ndarray] = {}
    problems = []
    # A bad slice that is no key slice is still the trouble of the rows around it.
    fallback = task.line_of(run)

    def skip(number: int, kind: str, text: str) -> None:
        line = task.line_of([number]) or fallback
        problems.append(Problem(task.png(number), line, text, "slice skipped", kind))

    for number in run:
        try:
            slices[number] = read_hu(task.raw / task.png(number))
        except BadSliceError as error:
            skip(number, error.kind, str(error))
    sizes = Counter(hu.shape for hu in slices.values())
    usual = sizes.most_common(1)[0][0] if sizes else None
    for number in [n for n, hu in slices.items() if hu.shape != usual]:
        height, width = slices.pop(number).shape
        text = f"the slice has {width} x {height} pixels, its neighbours {usual[1]} x {usual[0]}"
        skip(number, "image size", text)
    return slices, problems


def _spacing_of(
    task: SeriesTask, run: list[int]
) -> tuple[tuple[float, float, float] | None, list[Problem]]:
    """Spacing by the rows of a run, or else of the series; most rows win, then the first."""
    valid = [m for m in task.marks if valid_spacing(m.row.spacing)]
    marks = [m for m in valid if run[0] <= m.row.key_slice <= run[-1]] or valid
    if not marks:
        line = task.line_of(run)
        text = "no row of the table gives a usable spacing for these slices"
        name = f"{IMAGES}/{task.folder}"
        return None, [Problem(name, line, text, f"slices {_ranges(run)} skipped", "no spacing")]
    spacing = Counter(m.row.spacing for m in marks).most_common(1)[0][0]
    problems = [
        m.problem(
            "mixed spacing",
            f"{m.row.file_name} has the spacing {list(m.row.spacing)}, other rows of the same "
            f"slices {list(spacing)}",
            f"{list(spacing)} used",
        )
        for m in marks
        if not np.allclose(m.row.spacing, spacing, rtol=_SAME_SPACING, atol=0)
    ]
    return spacing, problems


def _ranges(numbers: Sequence[int]) -> str:
    """``[1, 2, 4]`` as ``1-2, 4``."""
    runs = contiguous_runs(sorted(numbers))
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _missing_slices(task: SeriesTask) -> list[Problem]:
    """Slices that the table promises and the folder lacks, once for every range."""
    there = {number for number, _ in task.slices}
    ranges: dict[tuple[int, int], Mark] = {}
    for mark in task.marks:
        ranges.setdefault(mark.row.slice_range, mark)
    problems = []
    for (first, last), mark in sorted(ranges.items(), key=lambda item: item[0]):
        missing = sorted(set(range(first, last + 1)) - there)
        if missing:
            text = f"{IMAGES}/{task.folder} lacks the slices {_ranges(missing)} of {first}-{last}"
            problems.append(mark.problem("missing slices", text, "the slices there are were used"))
    return problems


def convert_series(task: SeriesTask) -> Record:
    """Convert one folder of slices.

    Slices that follow one another become one volume; a slice that is missing or bad splits it, so
    nothing is ever interpolated across a gap.

    Args:
        task: The folder and what the table says about it.

    Returns:
        The record that is also written to ``records/``: ``folder``, ``inputs``, ``volumes`` (name,
        file_name, first_slice, grid, size) and ``problems``.

    Raises:
        OSError: A file cannot be read or written.
    """
    for path in task.stale:
        path.unlink(missing_ok=True)
    where = f"{IMAGES}/{task.folder}"
    problems = [
        Problem(f"{where}/{name}", None, "no name of a slice", "file ignored", "file name")
        for name in task.others
    ]
    problems += _missing_slices(task)
    volumes = []
    for run in contiguous_runs([number for number, _ in task.slices]):
        spacing, found = _spacing_of(task, run)
        problems += found
        if spacing is None:
            continue
        slices, found = _read_slices(task, run)
        problems += found
        for part in contiguous_runs(sorted(slices)):
            volumes.append(_store(task, part, np.stack([slices[n] for n in part]), spacing))
    record = {
        "folder": task.folder,
        "inputs": task.inputs,
        "volumes": volumes,
        "problems": [problem.to_dict() for problem in problems],
    }
    write_json(task.record_path, record)
    return record


def _store(
    task: SeriesTask, numbers: list[int], hu: np.ndarray, spacing: tuple[float, float, float]
) -> dict[str, Any]:
    name = volume_name(task.folder, numbers[0], numbers[-1])
    volume = Volume(hu, spacing).resample(task.spacing)
    path = task.out / "volumes" / (name + SUFFIX)
    save_volume(path, volume)
    return {
        "name": name,
        "file_name": path.name,
        "first_slice": numbers[0],
        "grid": Grid(hu.shape, spacing, volume.shape, task.spacing).to_dict(),
        "size": path.stat().st_size,
    }
