"""Many tasks at once, in processes that may fail and do not outlive their parent."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import Field
from multiprocessing import get_context
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, Protocol

import SimpleITK as sitk  # noqa: N813

__all__ = ["Record", "Task", "run_tasks"]

Record = dict[str, Any]
"""What a task leaves as JSON, with ``inputs``, ``volumes`` and ``problems`` among its keys."""


class Task(Protocol):
    """A piece of work that needs nothing of the others; a frozen dataclass that can be pickled."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def where(self) -> str:
        """The file or folder that it converts, for reports."""

    @property
    def out(self) -> Path:
        """The folder to write to."""

    @property
    def record_path(self) -> Path:
        """The file that tells that the task is complete."""

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on, beside the settings; plain values, for JSON."""

    @property
    def stale(self) -> tuple[Path, ...]:
        """Files of earlier, unfinished runs, to be removed first."""

    def convert(self) -> Record:
        """Do the work, write the record and return it."""


def _end_with(parent: int) -> None:
    """Let a worker end when its parent is killed; the pool's queues would keep it waiting."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _guarded(task: Task) -> tuple[Task, Record | None, str]:
    """Do a task; whatever goes wrong with it must not end the others."""
    # Processes share the cores already.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        return task, task.convert(), ""
    except Exception as error:
        return task, None, f"{type(error).__name__}: {error}"


def run_tasks(
    tasks: Sequence[Task], workers: int
) -> Generator[tuple[Task, Record | None, str], None, None]:
    """Do tasks in parallel; trouble with one leaves the others alone.

    Args:
        tasks: The tasks.
        workers: Number of processes; 1 works in this one.

    Yields:
        Every task with its record or None, and what went wrong or ''.
    """
    if workers <= 1 or len(tasks) <= 1:
        yield from map(_guarded, tasks)
        return
    pool = ProcessPoolExecutor(
        min(workers, len(tasks)),
        mp_context=get_context("fork"),
        initializer=_end_with,
        initargs=(os.getpid(),),
    )
    try:
        futures = {pool.submit(_guarded, task): task for task in tasks}
        for future in as_completed(futures):
            # A process that dies takes all unfinished work of the pool with it.
            if isinstance(future.exception(), BrokenProcessPool):
                error = "a process died (out of memory?); use fewer --workers"
                yield futures[future], None, error
            else:
                yield future.result()
    finally:
        # Also when the caller stops early: what has not started need not start.
        pool.shutdown(wait=True, cancel_futures=True)
