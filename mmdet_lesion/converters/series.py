"""Conversion of a folder of PNG slices to volumes of the store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..io import SUFFIX, Problem, save_volume, write_json
from ..io.png_slices import BadSliceError, contiguous_runs, read_hu
from ..io.volume_store import file_checksum
from ..structures import Geometry, Volume, published_to_voxels
from .annotation_rows import Annotation, check_box, valid_spacing
from .execution import Record
from .pseudo_masks import encode_mask, pseudo_mask

__all__ = ["IMAGES", "SeriesTask", "convert_series", "volume_name"]

IMAGES = "Images_png"

_SAME_SPACING = 1e-3


def volume_name(folder: str, first: int, last: int) -> str:
    """Return the name of a volume as in Lesion Harvester.

    It is ``{patient}_{study}_{series}_{first:03d}-{last:03d}``.
    """
    return f"{folder}_{first:03d}-{last:03d}"


@dataclass(frozen=True)
class SeriesTask:
    """Input of :func:`convert_series`.

    Args:
        folder: ``{patient}_{study}_{series}``.
        raw: The raw folder.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y)`` in mm; 0 keeps the published one.
        slices: Sorted ``(slice, file size)`` of every PNG.
        others: Names of PNGs that are not slices.
        annotations: All rows of the series.
        masks: Whether to generate a pseudo-mask for every annotation.
    """

    folder: str
    raw: Path
    out: Path
    spacing: tuple[float, float]
    slices: tuple[tuple[int, int], ...]
    others: tuple[str, ...]
    annotations: tuple[Annotation, ...]
    masks: bool = False

    @property
    def name(self) -> str:
        """Unique name of the task."""
        return self.folder

    @property
    def where(self) -> str:
        """Path of the folder in the raw folder, for reports."""
        return f"{IMAGES}/{self.folder}"

    def convert(self) -> Record:
        """Call :func:`convert_series`."""
        return convert_series(self)

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything except the settings that the result depends on, as plain values."""
        rows = [
            [m.file, m.row.line, m.row.key_slice, list(m.row.slice_range), repr(m.row.spacing)]
            for m in self.annotations
        ]
        if self.masks:
            drawn = [repr((m.row.box, m.row.measurement, m.row.window)) for m in self.annotations]
            rows = [[*row, text] for row, text in zip(rows, drawn)]
        return {
            "slices": [list(s) for s in self.slices],
            "others": [*self.others],
            "rows": rows,
        }

    @property
    def record_path(self) -> Path:
        """File that is written when the series is complete."""
        return self.out / "records" / f"{self.folder}.json"

    def png(self, number: int) -> str:
        """Return the path of a slice in the raw folder."""
        return f"{self.where}/{number:03d}.png"

    def line_of(self, numbers: Sequence[int]) -> int | None:
        """Return the line of the first row whose key slice is among ``numbers``, or None."""
        return next((m.row.line for m in self.annotations if m.row.key_slice in numbers), None)


def _read_slices(task: SeriesTask, run: list[int]) -> tuple[dict[int, np.ndarray], list[Problem]]:
    """Read the valid slices of a run that have the most common size."""
    slices: dict[int, np.ndarray] = {}
    problems = []
    # A bad slice that is not a key slice still affects the rows around it.
    fallback = task.line_of(run)

    def skip(number: int, kind: str, text: str) -> None:
        line = task.line_of([number]) or fallback
        problems.append(Problem(task.png(number), line, text, "slice skipped", kind))

    for number in run:
        try:
            slices[number] = read_hu(task.raw / task.png(number))
        except BadSliceError as error:
            skip(number, error.kind, str(error))
    if not slices:
        return slices, problems
    usual = Counter(hu.shape for hu in slices.values()).most_common(1)[0][0]
    for number in [n for n, hu in slices.items() if hu.shape != usual]:
        height, width = slices.pop(number).shape
        text = f"the slice has {width} x {height} pixels; expected {usual[1]} x {usual[0]}"
        skip(number, "image size", text)
    return slices, problems


def _spacing_of(
    task: SeriesTask, run: list[int]
) -> tuple[tuple[float, float, float] | None, list[Problem]]:
    """Return the most common spacing in the rows of a run, or in those of the series."""
    valid = [m for m in task.annotations if valid_spacing(m.row.spacing)]
    annotations = [m for m in valid if run[0] <= m.row.key_slice <= run[-1]] or valid
    if not annotations:
        line = task.line_of(run)
        text = "no row of the table has a valid spacing for these slices"
        return None, [
            Problem(task.where, line, text, f"slices {_ranges(run)} skipped", "no spacing")
        ]
    spacing = Counter(m.row.spacing for m in annotations).most_common(1)[0][0]
    problems = [
        m.problem(
            "mixed spacing",
            f"{m.row.file_name} has the spacing {list(m.row.spacing)}; expected {list(spacing)} as "
            "in other rows of the same slices",
            f"{list(spacing)} used",
        )
        for m in annotations
        if not np.allclose(m.row.spacing, spacing, rtol=_SAME_SPACING, atol=0)
    ]
    return spacing, problems


def _ranges(numbers: Sequence[int]) -> str:
    """Format ``[1, 2, 4]`` as ``1-2, 4``."""
    runs = contiguous_runs(sorted(numbers))
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)


def _missing_slices(task: SeriesTask) -> list[Problem]:
    """Report slices that the table lists and the folder lacks, once for every range."""
    present = {number for number, _ in task.slices}
    ranges: dict[tuple[int, int], Annotation] = {}
    for annotation in task.annotations:
        ranges.setdefault(annotation.row.slice_range, annotation)
    problems = []
    for (first, last), annotation in sorted(ranges.items(), key=lambda item: item[0]):
        missing = sorted(set(range(first, last + 1)) - present)
        if missing:
            text = f"{task.where} lacks the slices {_ranges(missing)} of {first}-{last}"
            problems.append(annotation.problem("missing slices", text, "other slices used"))
    return problems


def convert_series(task: SeriesTask) -> Record:
    """Convert a folder of slices.

    Consecutive slices become one volume. A missing or bad slice splits it, so that nothing is
    interpolated across a gap.

    Args:
        task: The folder and its rows of the table.

    Returns:
        The record that is also written to ``records/``, with ``folder``, ``inputs``, ``volumes``
        (``name``, ``file_name``, ``first_slice``, ``geometry``, ``published_geometry``,
        ``checksum`` and, with ``task.masks``, the ``masks`` of the annotations) and ``problems``.

    Raises:
        OSError: A file cannot be read or written.
    """
    problems = [
        Problem(
            f"{task.where}/{name}",
            None,
            "the name is not a slice number; expected one such as 001.png",
            "file ignored",
            "file name",
        )
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
    # Slices stay as published, so that a key slice is the annotated slice.
    x, y = (new or old for new, old in zip(task.spacing, spacing))
    store_spacing = (x, y, spacing[2])
    published = Volume(hu, spacing)
    volume = published.resample(store_spacing)
    path = task.out / "volumes" / (name + SUFFIX)
    save_volume(path, volume)
    stored = {
        "name": name,
        "file_name": path.name,
        "first_slice": numbers[0],
        "geometry": volume.geometry.to_dict(),
        "published_geometry": published.geometry.to_dict(),
        "checksum": file_checksum(path),
    }
    if task.masks:
        stored["masks"] = _masks(task, numbers[0], volume, published.geometry)
    return stored


def _masks(task: SeriesTask, first: int, volume: Volume, published: Geometry) -> dict[str, dict]:
    """Generate the masks of the annotations on a volume's slices by the annotations' keys."""
    masks = {}
    depth, height, width = published.shape
    for annotation in task.annotations:
        row = annotation.row
        box, _ = check_box(row.box, width, height)
        if row.noisy or box is None or not first <= row.key_slice < first + depth:
            continue
        plane = volume.array[row.key_slice - first]
        (edges,) = published.boxes_to(volume.geometry, published_to_voxels([box]))
        points = np.reshape(row.measurement, (-1, 2)) - 0.5
        recist = published.points_to(volume.geometry, points)
        if not np.isfinite(recist).all():
            recist = None
        masks[annotation.key] = encode_mask(pseudo_mask(plane, edges, recist, row.window))
    return masks
