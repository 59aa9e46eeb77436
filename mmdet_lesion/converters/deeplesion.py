"""Conversion of DeepLesion, as published, to the volume store and COCO files.

The output folder::

    conversion.json           settings, which --resume compares
    records/{series}.json     written when all volumes of a series are complete
    volumes/{name}.b2nd       the volume store: slices as published, resampled in x and y
    annotations/*.json        COCO, written when all series are complete
    conversion_report.json    problems and counts
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..io import (
    CocoBuilder,
    GroundTruth,
    Problem,
    read_dl_info,
    read_ground_truth,
    write_json,
)
from .annotation_rows import Annotation, select_annotations
from .annotations import VolumeIndex, key_slice_file, whole_volume_file
from .base import ConversionResult, StoreConversion, read_record
from .execution import Record
from .report import StrictError
from .series import IMAGES, SeriesTask, list_slices

__all__ = ["DeepLesionConversion"]

_SPLITS = {1: "train", 2: "val", 3: "test"}
# Completely labeled volumes, the file of their truth and the annotation file made of it.
_HARVESTER = {
    "Revised-Train100": "harvester_val",
    "Revised-Test1071": "harvester_test",
    "Revised-Train744": "harvester_train",
}
# Volumes for validation and test; the 744 stay in the training set.
_HELD_OUT = ("Revised-Train100", "Revised-Test1071")
_FULL_TRAIN = "Full-Train"
_VOLUME_NAME = re.compile(r"(?P<series>\d+_\d+_\d+)_(?P<first>\d+)-(?P<last>\d+)")


class DeepLesionConversion(StoreConversion):
    """Convert DeepLesion.

    Series are converted in parallel, divided among shards, and skipped when a conversion is
    resumed. The output is the same to the byte however the work was divided or interrupted.

    Args:
        raw: Folder with ``Images_png/`` and ``DL_info.csv``; without the latter all
            ``DL_info*.csv`` are read.
        out: Folder to write to.
        harvester: Folder of Lesion Harvester's ``Revised-*.pkl``; by default ``harvester/`` in the
            raw folder where there is one. Annotations on volumes for validation or test
            are left out of ``train.json``.
        spacing: Spacing of the store ``(x, y)`` in mm; 0 keeps the published one. Slices stay as
            published; loading transforms interpolate.
        strict: Stop at the first problem.
        masks: Make a pseudo-mask of every annotation by GrabCut, for Mask R-CNN.

    Raises:
        FileNotFoundError: A folder or the table does not exist.
        InputError: A table or pickle cannot be used, or the spacing is not two numbers from 0.
    """

    # 1 was resampled in z as well, 2 had other keys for the geometry.
    _format = 3
    _spacing_axes = "xy"
    _zero_keeps_published = True
    _unwritten: ClassVar[dict[str, Any]] = {"masks": False}

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        harvester: str | os.PathLike | None = None,
        spacing: Sequence[float] = (0.8, 0.8),
        strict: bool = False,
        masks: bool = False,
    ) -> None:
        super().__init__(out, spacing, strict)
        self.raw = Path(raw)
        self.masks = masks
        if not (self.raw / IMAGES).is_dir():
            raise FileNotFoundError(f"{self.raw / IMAGES} does not exist; expected folders of PNGs")
        self._truths = self._read_truths(harvester)
        self._held_out = self._held_out_slices()
        self._read_tables()

    def _read_truths(self, harvester: str | os.PathLike | None) -> dict[str, GroundTruth]:
        folder = self.raw / "harvester" if harvester is None else Path(harvester)
        names = (*_HARVESTER, _FULL_TRAIN)
        there = [name for name in names if (folder / f"{name}.pkl").is_file()]
        if harvester is not None and not there:
            raise FileNotFoundError(
                f"{folder} holds no truth; expected one of {', '.join(f'{n}.pkl' for n in names)}"
            )
        # An unreadable file ends the conversion: its volumes must not get into the training set.
        return {name: read_ground_truth(folder / f"{name}.pkl") for name in there}

    def _held_out_slices(self) -> dict[str, list[tuple[int, int, str]]]:
        """By series: first and last slice of held-out volumes, and their file."""
        ranges: dict[str, list[tuple[int, int, str]]] = defaultdict(list)
        for source in _HELD_OUT:
            for name in self._truths.get(source, ()):
                match = _VOLUME_NAME.fullmatch(name)
                if not match:
                    raise InputError(
                        f"{source}.pkl has the volume {name!r}; expected "
                        "{patient}_{study}_{series}_{first}-{last}"
                    )
                ranges[match["series"]].append((int(match["first"]), int(match["last"]), source))
        return ranges

    def _read_tables(self) -> None:
        table = self.raw / "DL_info.csv"
        tables = [table] if table.is_file() else sorted(self.raw.glob("DL_info*.csv"))
        if not tables:
            raise FileNotFoundError(
                f"{table} does not exist; expected DeepLesion's table of annotations"
            )
        self._all_rows: list[Annotation] = []
        self._table_problems: list[Problem] = []
        for path in tables:
            rows, problems = read_dl_info(path)
            self._all_rows += [Annotation(path.name, row) for row in rows]
            self._table_problems += problems
        self._row_counts = {"read": len(self._all_rows) + len(self._table_problems)}
        self._rows, noisy, problems = select_annotations(self._all_rows)
        self._table_problems += problems
        self._row_counts["noisy"] = len(noisy)

    def run(
        self,
        workers: int = 1,
        shard: tuple[int, int] = (1, 1),
        resume: bool = False,
        progress: bool = True,
    ) -> ConversionResult:
        """Convert, and write the annotations when all series are complete.

        Args:
            workers: Number of processes.
            shard: ``(i, n)``: convert the i-th of n parts, i from 1 to n (0 stands for n). Shards
                may run at the same time on the same output folder.
            resume: Continue a conversion into the same folder.
            progress: Show a progress bar.

        Returns:
            The report and what is left to do.

        Raises:
            StrictError: The first problem of a strict conversion.
            InputError: The output folder holds something else, or other settings made it.
        """
        self._prepare_output(resume or shard[1] > 1)
        try:
            self.report.add(self._table_problems)
            tasks = self._tasks()
            own = [task for i, task in enumerate(tasks) if i % shard[1] == shard[0] % shard[1]]
            records, failed = self._convert(own, workers, progress)
            if failed:
                self.report.write(self.out / "conversion_report.json")
                return ConversionResult(self.report, 0, failed)
            for task in tasks:
                if task.folder not in records:
                    record = read_record(task)
                    if record is not None:
                        self._note(record)
                        records[task.folder] = record
            waiting = len(tasks) - len(records)
            if not waiting:
                self._sweep(alone=shard[1] == 1)
                self._write_annotations([records[task.folder] for task in tasks])
        except StrictError:
            self.report.write(self.out / "conversion_report.json")
            raise
        return ConversionResult(self.report, waiting, 0)

    def _settings(self) -> dict[str, Any]:
        return {**super()._settings(), "masks": self.masks}

    def _tasks(self) -> list[SeriesTask]:
        """All series, by name; rows without a PNG are reported on the way."""
        annotations: dict[str, list[Annotation]] = defaultdict(list)
        for annotation in self._all_rows:
            annotations[annotation.row.folder].append(annotation)
        folders = sorted(p.name for p in (self.raw / IMAGES).iterdir() if p.is_dir())
        tasks = []
        x, y = self.spacing
        for folder in folders:
            slices, others = list_slices(self.raw / IMAGES / folder)
            if folder not in annotations:
                text = "no row of the table names this series"
                name = f"{IMAGES}/{folder}"
                problem = Problem(name, None, text, "series skipped", "series without rows")
                self.report.add([problem])
                continue
            tasks.append(
                SeriesTask(
                    folder,
                    self.raw,
                    self.out,
                    (x, y),
                    tuple(slices),
                    tuple(others),
                    tuple(annotations[folder]),
                    masks=self.masks,
                )
            )
        series = set(folders)
        there = {(task.folder, number) for task in tasks for number, _ in task.slices}
        present = []
        for annotation in self._rows:
            row = annotation.row
            if (row.folder, row.key_slice) in there:
                present.append(annotation)
                continue
            name = f"{IMAGES}/{row.folder}"
            # Data sets are often downloaded in parts, so that whole series may be missing.
            gone = row.folder not in series
            text = f"{name} is missing" if gone else f"{name}/{row.key_slice:03d}.png is missing"
            self.report.add([annotation.problem("missing series" if gone else "missing PNG", text)])
        self._rows = present
        return tasks

    @staticmethod
    def _task_of(name: str) -> str:
        return name.rpartition("_")[0]

    def _write_annotations(self, records: list[Record]) -> None:
        index = VolumeIndex(records)
        splits: dict[str, list[Annotation]] = {name: [] for name in _SPLITS.values()}
        for annotation in self._rows:
            splits[_SPLITS[annotation.row.split]].append(annotation)
        splits["train"], excluded = self._without_held_out(splits["train"])
        builders: dict[str, CocoBuilder] = {}
        for name, rows in splits.items():
            builders[name], problems = key_slice_file(f"DeepLesion, official {name}", rows, index)
            self.report.add(problems)
        row_counts = self._row_counts
        row_counts["annotated"] = sum(
            builder.counts["annotations"] for builder in builders.values()
        )
        row_counts["left_out_of_train"] = sum(excluded.values())
        row_counts["skipped"] = row_counts["read"] - sum(
            row_counts[key] for key in ("noisy", "annotated", "left_out_of_train")
        )
        if _FULL_TRAIN in self._truths:
            builders["train_full"], _ = key_slice_file(
                "DeepLesion, official train, all lesions of the key slices",
                splits["train"],
                index,
                self._truths[_FULL_TRAIN],
            )
        for source, name in _HARVESTER.items():
            if source in self._truths:
                description = f"DeepLesion, Lesion Harvester, {source}"
                builders[name], problems = whole_volume_file(
                    description, f"{source}.pkl", self._truths[source], index
                )
                self.report.add(problems)
        counts: dict[str, Any] = {}
        for name, builder in builders.items():
            path = self.out / "annotations" / f"{name}.json"
            if builder.counts["images"]:
                write_json(path, builder.to_dict())
                counts[name] = builder.counts
            else:
                # An empty file would only fail later, in training.
                path.unlink(missing_ok=True)
        self.report.counts.update(
            rows=row_counts,
            annotations=counts,
            volumes=len(index),
            series=len(records),
            annotations_left_out_of_train=dict(excluded),
        )
        self.report.write(self.out / "conversion_report.json")

    def _without_held_out(self, annotations: list[Annotation]) -> tuple[list[Annotation], Counter]:
        """Leave out training annotations on slices of volumes that are validated or tested on."""
        kept = []
        excluded: Counter = Counter()
        for annotation in annotations:
            # By slices and not by name: a volume that a missing PNG has split is left out as well.
            sources = (
                source
                for first, last, source in self._held_out.get(annotation.row.folder, ())
                if first <= annotation.row.key_slice <= last
            )
            source = next(sources, None)
            if source:
                excluded[source] += 1
            else:
                kept.append(annotation)
        return kept, excluded
