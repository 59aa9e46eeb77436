"""Parallel and atomic output of phantom datasets."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import cv2

from ..errors import InputError
from ..processes import end_with_parent
from ..progress import track

__all__ = ["SETTINGS_FILE", "new_folder", "render_all"]

SETTINGS_FILE = "phantoms.json"
# Files of both layouts.
_OWN_FILES = re.compile(
    r"phantoms\.json|DL_info\.csv|Images_png/[\d_]+/\d+\.png|harvester/[\w-]+\.pkl"
    r"|subset\d/[\d.]+\.(?:mhd|raw)|(?:annotations|annotations_excluded|seriesuids)\.csv"
)

Plan = TypeVar("Plan")
Result = TypeVar("Result")


@contextmanager
def new_folder(out: str | os.PathLike, overwrite: bool) -> Iterator[Path]:
    """Context manager that creates a folder atomically.

    Args:
        out: The folder to write.
        overwrite: Whether to replace existing phantoms.

    Yields:
        An empty temporary folder, which is renamed to ``out`` at the end or removed on an
        exception.

    Raises:
        InputError: ``out`` holds other files, or phantoms that may not be replaced.
    """
    out = Path(out).resolve()
    _check_target(out, overwrite)
    building = out.with_name(f".{out.name}.partial")
    shutil.rmtree(building, ignore_errors=True)
    try:
        building.mkdir(parents=True)
        yield building
        _move(building, out)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise


def render_all(
    render: Callable[[Plan], Result], plans: Sequence[Plan], workers: int, progress: bool
) -> Iterator[Result]:
    """Call ``render`` on every plan in worker processes and yield the results in order.

    Raises:
        InputError: ``workers`` is below 1.
    """
    if workers < 1:
        raise InputError(f"workers is {workers}; expected at least 1")
    results = _run(render, plans, workers)
    yield from track(results, len(plans), "phantoms", "volumes", disable=not progress)


def _check_target(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder to write")
    if not any(out.iterdir()):
        return
    if not (out / SETTINGS_FILE).is_file():
        raise InputError(f"{out} has files but no {SETTINGS_FILE}; expected an empty folder")
    if not overwrite:
        raise InputError(f"{out} already holds phantoms; expected --overwrite to replace them")
    for path in out.rglob("*"):
        name = path.relative_to(out).as_posix()
        if not path.is_dir() and not _OWN_FILES.fullmatch(name):
            raise InputError(
                f"{out} contains {name}, which is not a phantom; expected phantoms only, since "
                "--overwrite replaces the folder"
            )


def _move(building: Path, out: Path) -> None:
    old = out.with_name(f".{out.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if out.exists():
        os.replace(out, old)
    os.replace(building, out)
    shutil.rmtree(old, ignore_errors=True)


def _start_worker(parent: int) -> None:
    end_with_parent(parent)
    cv2.setNumThreads(0)


def _run(render, plans, workers: int) -> Iterator:
    if workers == 1:
        yield from map(render, plans)
        return
    # Forking avoids importing the package again in each process.
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(workers, context, _start_worker, (os.getpid(),)) as pool:
        try:
            yield from pool.map(render, plans)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
