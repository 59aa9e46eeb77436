"""Parallel execution of tasks in processes that may fail and end with their parent."""

from __future__ import annotations

import os
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import SimpleITK as sitk  # noqa: N813

from ..errors import is_disk_full
from ..processes import end_with_parent

__all__ = ["Record", "Task", "run_tasks"]

Record = dict[str, Any]
"""Result of a task as JSON; its keys include ``inputs``, ``volumes`` and ``problems``."""


class Task(Protocol):
    """An independent unit of work, which can be pickled."""

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def where(self) -> str:
        """File or folder that the task converts, for reports."""

    @property
    def out(self) -> Path:
        """Folder to write to."""

    @property
    def record_path(self) -> Path:
        """File that is written when the task is complete."""

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything except the settings that the result depends on, as plain values."""

    def convert(self) -> Record:
        """Convert, write the record and return it."""


def _guarded(task: Task) -> tuple[Task, Record | None, str]:
    """Run a task, and return an exception as text so that the other tasks continue.

    Raises:
        OSError: The disk is full, so that the other tasks would fail, too.
    """
    # The cores are shared by the processes.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        return task, task.convert(), ""
    except Exception as error:
        if is_disk_full(error):
            raise
        return task, None, f"{type(error).__name__}: {error}"


def run_tasks(
    tasks: Sequence[Task], workers: int
) -> Generator[tuple[Task, Record | None, str], None, None]:
    """Run tasks in parallel. A task that fails does not stop the others.

    Args:
        tasks: The tasks.
        workers: Number of processes; 1 uses this process.

    Yields:
        Every task with its record, or with None and the error (``''`` if there is none).

    Raises:
        OSError: The disk is full.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_guarded, tasks)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        mp_context=get_context("fork"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
    )
    try:
        futures = {pool.submit(_guarded, task): task for task in tasks}
        for future in as_completed(futures):
            # If a process dies, all unfinished tasks of the pool fail.
            if isinstance(future.exception(), BrokenProcessPool):
                error = "a process died (out of memory?); use fewer --workers"
                yield futures[future], None, error
            else:
                yield future.result()
    finally:
        # The caller may stop early.
        pool.shutdown(wait=True, cancel_futures=True)
