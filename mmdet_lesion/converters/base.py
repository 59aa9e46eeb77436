"""Base class for resumable converters to the volume store."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..errors import InputError
from ..io import Problem, leftover_of, read_json, write_json
from ..io.volume_store import SUFFIX, file_checksum
from ..progress import Progress, track
from .execution import Record, Task, run_tasks
from .report import ConversionReport, StrictError

__all__ = ["ConversionResult", "StoreConversion", "read_record"]


@dataclass(frozen=True)
class ConversionResult:
    """Result of a conversion.

    Args:
        report: Problems and counts.
        waiting: Number of series that other shards have not converted yet. The annotations are
            written when it is 0.
        failed: Number of series that were not converted because of an unexpected exception.
    """

    report: ConversionReport
    waiting: int
    failed: int


def read_record(task: Task) -> Record | None:
    """Return the record of a task that an earlier run completed from the same files, or None."""
    if not task.record_path.is_file():
        return None
    record = read_json(task.record_path)
    if record["inputs"] != task.inputs:
        return None
    for volume in record["volumes"]:
        path = task.out / "volumes" / volume["file_name"]
        if not path.is_file() or file_checksum(path) != volume["checksum"]:
            return None
    return record


class StoreConversion:
    """Base class for resumable converters to the volume store.

    Tasks run in parallel. A task is complete when its record exists, which is written last.
    However the work is divided or interrupted, the output has the same bytes.

    Subclasses implement :meth:`_tasks` and :meth:`_write_annotations`, and append the problems
    that their constructor finds to ``_problems``.

    Args:
        raw: Folder with the published files.
        out: Folder to write to.
        spacing: Spacing of the store in mm, ``(x, y, z)``, or ``(x, y)`` for converters that do
            not interpolate between slices.
        strict: Whether to stop at the first problem.

    Raises:
        FileNotFoundError: The raw folder does not exist.
        InputError: The spacing has a wrong length, or a value that is not positive (0 is valid for
            ``(x, y)`` and keeps the published spacing).
    """

    _unit = "series"
    _format = 3
    #: Part of the raw folder that must exist.
    _raw_subfolder = ""
    #: Whether slices stay as published; the spacing is then ``(x, y)``.
    _in_plane_only: bool = False
    #: Values of settings that earlier versions did not record.
    _unrecorded: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        raw: str | os.PathLike,
        out: str | os.PathLike,
        spacing: Sequence[float],
        strict: bool,
    ) -> None:
        self.raw = Path(raw)
        self.out = Path(out)
        self.spacing: tuple[float, ...] = tuple(float(s) for s in spacing)
        if self._in_plane_only:
            valid = len(self.spacing) == 2 and all(0 <= s < math.inf for s in self.spacing)
            expected = "two numbers from 0 (x y), since slices are interpolated on loading"
        else:
            valid = len(self.spacing) == 3 and all(0 < s < math.inf for s in self.spacing)
            expected = "three positive numbers (x y z)"
        if not valid:
            raise InputError(f"spacing is {self.spacing}; expected {expected}")
        folder = self.raw / self._raw_subfolder
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder} does not exist; expected a folder of raw data")
        self.report = ConversionReport(strict)
        self._problems: list[Problem] = []

    def run(
        self,
        workers: int = 1,
        resume: bool = False,
        progress: bool = True,
        shard: tuple[int, int] = (1, 1),
    ) -> ConversionResult:
        """Convert the dataset, and write the annotations once all tasks are complete.

        Args:
            workers: Number of processes.
            resume: Whether to continue a conversion in the same folder.
            progress: Whether to show a progress bar.
            shard: ``(i, n)`` to convert the i-th of n parts, i from 1 to n. Shards
                may run at the same time with the same output folder; the last one to finish writes
                the annotations.

        Returns:
            The report, and the numbers of series that are not converted.

        Raises:
            StrictError: The first problem of a strict conversion.
            InputError: The output folder contains other files, or a conversion that is not resumed
                or has other settings.
        """
        index, shards = shard
        self._check_inputs(workers, progress)
        self._prepare_output(resume or shards > 1)
        waiting = 0
        try:
            self.report.add(self._problems)
            tasks = self._tasks()
            records, failed = self._convert(tasks[index % shards :: shards], workers, progress)
            if not failed:
                waiting = len(self._read_records(tasks, records))
                if not waiting:
                    self._remove_leftovers(annotations=shards == 1)
                    self._write_annotations(records)
        except StrictError:
            self._write_report()
            raise
        if not waiting:
            self._write_report()
        return ConversionResult(self.report, waiting, failed)

    def _check_inputs(self, workers: int, progress: bool) -> None:
        """Check what takes longer than a constructor should, before anything is written."""

    def _tasks(self) -> Sequence[Task]:
        """Return all tasks, in an order that is the same in every run."""
        raise NotImplementedError

    def _write_annotations(self, records: dict[str, Record]) -> None:
        """Write the annotation files and the counts of the report.

        Args:
            records: Records of all tasks by the tasks' names.
        """
        raise NotImplementedError

    def _settings(self) -> dict[str, Any]:
        """Return the settings that must be the same when a conversion is resumed."""
        return {"format": self._format, "spacing": list(self.spacing)}

    @staticmethod
    def _task_name(volume: str) -> str:
        """Return the name of the task that writes a file of the store."""
        return volume.rpartition(".")[0]

    def _write_report(self) -> None:
        self.report.write(self.out / "conversion_report.json")

    def _prepare_output(self, resume: bool) -> None:
        path = self.out / "conversion.json"
        settings = self._settings()
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file; expected a new or empty folder")
        names = sorted(entry.name for entry in self.out.glob("*") if not leftover_of(entry))
        if not names:
            write_json(path, settings)
            return
        if not path.is_file():
            raise InputError(
                f"{self.out} contains {names[0]} and no conversion; expected a new or empty folder"
            )
        if not resume:
            raise InputError(
                f"{self.out} already contains a conversion; expected --resume (resume=True) or "
                "another folder"
            )
        found = {**self._unrecorded, **read_json(path)}
        for key in sorted({*settings, *found}):
            if found.get(key) != settings.get(key):
                raise InputError(
                    f"{path} has {key} {found.get(key)}; expected {settings.get(key)} as in this "
                    "run: resume with the same settings or choose another folder"
                )

    def _is_final(self, record: Record) -> bool:
        """Return whether a task with this record of an earlier run need not be converted again."""
        return True

    def _failures(self, record: Record) -> list[str]:
        """Return what of a converted task should be printed at once."""
        return []

    def _read_records(
        self, tasks: Sequence[Task], records: dict[str, Record], again: bool = False
    ) -> list[Task]:
        """Add the records of completed tasks to ``records``, and return the other tasks.

        Args:
            tasks: The tasks.
            records: Records by the tasks' names.
            again: Whether to return tasks whose record is not final, too.
        """
        pending = []
        for task in tasks:
            if task.name not in records:
                record = read_record(task)
                if record is None or (again and not self._is_final(record)):
                    pending.append(task)
                else:
                    self._add_record(task, record, records)
        return pending

    def _add_record(self, task: Task, record: Record, records: dict[str, Record]) -> None:
        records[task.name] = record
        self.report.add(Problem(**problem) for problem in record["problems"])

    def _convert(
        self, tasks: Sequence[Task], workers: int, progress: bool
    ) -> tuple[dict[str, Record], int]:
        """Convert the tasks that are not complete.

        Returns:
            Records by the tasks' names, and the number of tasks that failed because of an
            unexpected exception.
        """
        records: dict[str, Record] = {}
        pending = self._read_records(tasks, records, again=True)
        self._remove_volumes(pending)
        failed = 0
        unit = self._unit if self._unit.endswith("s") else f"{self._unit}s"
        results = run_tasks(pending, workers)
        # Closing the results stops the processes as soon as a strict conversion ends.
        with Progress(unit, not progress, forks=True) as display, closing(results):
            done = track(
                results, len(tasks), "convert", unit, initial=len(records), display=display
            )
            for task, record, error in done:
                if record is None:
                    failed += 1
                    problem = Problem(
                        task.where, None, error, f"{self._unit} not converted", "failure"
                    )
                    display.log(str(problem))
                    self.report.add([problem])
                else:
                    for line in self._failures(record):
                        display.log(line)
                    self._add_record(task, record, records)
        return records, failed

    def _remove_volumes(self, tasks: Sequence[Task]) -> None:
        """Remove the volumes that earlier, unfinished runs wrote for tasks."""
        names = {task.name for task in tasks}
        for path in (self.out / "volumes").glob("*"):
            name = leftover_of(path) or path.name
            if name.endswith(SUFFIX) and self._task_name(name) in names:
                path.unlink(missing_ok=True)

    def _remove_leftovers(self, annotations: bool) -> None:
        """Remove the temporary files of killed processes."""
        # Another shard may be writing the annotations or the report, but no volume.
        for name in ("volumes", "records", *(("annotations", "") if annotations else ())):
            for path in (self.out / name).glob("*"):
                if leftover_of(path):
                    path.unlink(missing_ok=True)
