"""Converting many series at once, in processes that may fail and do not outlive their parent."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from threading import Thread

import SimpleITK as sitk  # noqa: N813

from .series import Record, SeriesTask, convert_series

__all__ = ["run_tasks"]


def _end_with(parent: int) -> None:
    """Let a worker end when its parent is killed; the pool's queues would keep it waiting."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.2)
        os._exit(1)

    Thread(target=watch, daemon=True).start()


def _guarded(task: SeriesTask) -> tuple[str, Record | None, str]:
    """Convert a series; whatever goes wrong with it must not end the others."""
    # Processes share the cores already.
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        return task.folder, convert_series(task), ""
    except Exception as error:
        return task.folder, None, f"{type(error).__name__}: {error}"


def run_tasks(tasks: list[SeriesTask], workers: int) -> Iterator[tuple[str, Record | None, str]]:
    """Convert series in parallel; trouble with one leaves the others alone.

    Args:
        tasks: The series.
        workers: Number of processes; 1 works in this one.

    Yields:
        For every series its folder, its record or None, and what went wrong or ''.
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
                yield futures[future].folder, None, error
            else:
                yield future.result()
    finally:
        # Also when the caller stops early: what has not started need not start.
        pool.shutdown(wait=True, cancel_futures=True)
