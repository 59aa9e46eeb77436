"""What conversions to the volume store have in common: a folder, records, and going on later."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from tqdm import tqdm

from ..errors import InputError
from ..io import Problem, leftover_of, read_json, write_json
from .execution import Record, Task, run_tasks
from .report import ConversionReport

__all__ = ["ConversionResult", "StoreConversion", "read_record"]


@dataclass(frozen=True)
class ConversionResult:
    """What became of a conversion.

    Args:
        report: Problems and counts.
        waiting: Series that other shards have still to convert; annotations are written when there
            are none.
        failed: Series that could not be converted for a reason that is not their own.
    """

    report: ConversionReport
    waiting: int
    failed: int


def read_record(task: Task) -> Record | None:
    """The record of a task that an earlier run completed from the same files, or None."""
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


class StoreConversion:
    """Converts tasks to volumes of the store, in parallel, and goes on where it was killed.

    A task is complete when its record is there, which is written last. Subclasses say what the
    tasks are and write the annotations.

    Args:
        out: Folder to write to.
        spacing: Spacing of the store in mm, ``(x, y, z)``, or ``(x, y)`` where slices stay as
            published.
        strict: Stop at the first problem.

    Raises:
        InputError: The spacing is not as many positive numbers, or numbers from 0 where 0 stands
            for the published spacing.
    """

    _unit = "series"
    _format = 2
    #: Axes that are resampled.
    _spacing_axes = "xyz"
    _zero_keeps_published = False
    # Settings that conversions did not write down before there was a choice.
    _unwritten: ClassVar[dict[str, Any]] = {}

    def __init__(self, out: str | os.PathLike, spacing: Sequence[float], strict: bool) -> None:
        self.out = Path(out)
        self.spacing: tuple[float, ...] = tuple(float(s) for s in spacing)
        zero = self._zero_keeps_published
        axes = self._spacing_axes
        if len(self.spacing) != len(axes) or not all(
            0 < s < math.inf or (zero and s == 0) for s in self.spacing
        ):
            count = {2: "two", 3: "three"}[len(axes)]
            expected = f"{count} {'numbers from 0' if zero else 'positive numbers'}"
            if "z" not in axes:
                expected += " (x y): slices stay as published and are interpolated on loading"
            raise InputError(f"the spacing is {self.spacing}; expected {expected}")
        self.report = ConversionReport(strict)

    def _settings(self) -> dict[str, Any]:
        """What must be the same when a conversion goes on."""
        return {"format": self._format, "spacing": list(self.spacing)}

    @staticmethod
    def _task_of(name: str) -> str:
        """Name of the task that a file of the store belongs to."""
        return name.rpartition(".")[0]

    def _prepare_output(self, may_go_on: bool) -> None:
        path = self.out / "conversion.json"
        settings = self._settings()
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file; expected a folder to write to")
        entries = self.out.iterdir() if self.out.exists() else ()
        there = sorted(entry.name for entry in entries if not leftover_of(entry))
        if not there:
            write_json(path, settings)
            return
        if not path.is_file():
            raise InputError(
                f"{self.out} holds {there[0]} and is no conversion; expected a new or empty folder"
            )
        if not may_go_on:
            raise InputError(
                f"{self.out} holds a conversion already; add --resume to go on with it, or choose "
                "another folder"
            )
        found = {**self._unwritten, **read_json(path)}
        for key in sorted({*settings, *found}):
            if found.get(key) != settings.get(key):
                raise InputError(
                    f"{path} tells {key} {found.get(key)}, now it is {settings.get(key)}; go on "
                    "with the same settings or choose another folder"
                )

    def _note(self, record: Record) -> None:
        self.report.add(Problem(**problem) for problem in record["problems"])

    def _convert(
        self, tasks: Sequence[Task], workers: int, progress: bool
    ) -> tuple[dict[str, Record], int]:
        """Convert what does not exist yet.

        Returns:
            The records by the tasks' names, and the number of tasks that failed for a reason that
            is not their own.
        """
        records: dict[str, Record] = {}
        pending = []
        for task in tasks:
            record = read_record(task)
            if record is None:
                pending.append(task)
            else:
                self._note(record)
                records[task.name] = record
        failed = 0
        bar = tqdm(
            desc="convert",
            unit=self._unit,
            total=len(tasks),
            initial=len(records),
            disable=not progress,
        )
        results = run_tasks(self._with_stale(pending), workers)
        # Closing the results stops the processes as soon as a strict conversion ends.
        with bar, closing(results):
            for task, record, error in results:
                bar.update()
                if record is None:
                    failed += 1
                    problem = Problem(
                        task.where, None, error, f"{self._unit} not converted", "failure"
                    )
                    self.report.add([problem])
                else:
                    records[task.name] = record
                    self._note(record)
        return records, failed

    def _with_stale(self, tasks: Sequence[Task]) -> list[Task]:
        """Tell every task which files an unfinished run has left of it."""
        stale: dict[str, list[Path]] = defaultdict(list)
        folder = self.out / "volumes"
        for path in folder.iterdir() if folder.is_dir() else ():
            stale[self._task_of(leftover_of(path) or path.name)].append(path)
        return [replace(task, stale=tuple(sorted(stale[task.name]))) for task in tasks]

    def _sweep(self, alone: bool = True) -> None:
        """Remove what writers that were killed have left."""
        # All volumes are complete; annotations another shard may be writing at this moment.
        for name in ("volumes", "records", *(("annotations", "") if alone else ())):
            folder = self.out / name
            for path in folder.iterdir() if folder.is_dir() else ():
                if leftover_of(path):
                    path.unlink(missing_ok=True)
