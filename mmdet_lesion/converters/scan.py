"""One scan of any format to a volume of the store: the work of one process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io import SUFFIX, Problem, save_volume, write_json
from ..structures import Volume
from .annotation_rows import valid_spacing
from .execution import Record

__all__ = ["AIR", "CHUNK", "ScanTask", "convert_scan", "list_files"]

AIR = -1024
"""HU of the air around a patient, and least value in the store.

Scanners write less (-2000, -3024) where they have seen nothing; interpolated with tissue, that
would leave a dark seam.
"""
CHUNK = (32, 64, 64)
"""Chunks that let crops read little more than themselves."""

# Headers are compared as a whole: a mended spacing leaves the size of the file as it was.
_LONGEST_HEADER = 64 * 1024

Reader = Callable[[Path], tuple[Volume, str | None, list[Problem]]]
"""Reads a scan: the volume, its series UID where the file knows it, and what is odd about it.

Trouble that leaves nothing to convert is raised as ``InputError``, whose ``kind``, ``line`` and
``reason`` go into the report where it has them.
"""


def list_files(raw: Path, paths: Sequence[Path]) -> tuple[tuple[str, int, str], ...]:
    """Name, size and (of small files) digest of all files that a scan consists of."""
    files = []
    for path in paths:
        size = path.stat().st_size
        small = size <= _LONGEST_HEADER
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
        files.append((Path(os.path.relpath(path, raw)).as_posix(), size, digest))
    return tuple(files)


@dataclass(frozen=True)
class ScanTask:
    """What :func:`convert_scan` needs to know.

    Args:
        name: Name of the volume.
        raw: The raw folder.
        source: The file or folder that ``read`` reads.
        read: See :data:`Reader`; a function of a module, so that processes can be given it.
        out: The folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        files: What :func:`list_files` told of its files.
        stale: Files of earlier, unfinished runs, to be removed first.
    """

    name: str
    raw: Path
    source: Path
    read: Reader
    out: Path
    spacing: tuple[float, float, float]
    files: tuple[tuple[str, int, str], ...]
    stale: tuple[Path, ...] = ()

    @property
    def where(self) -> str:
        """The scan within the raw folder, for reports."""
        return self.source.relative_to(self.raw).as_posix()

    @property
    def inputs(self) -> dict[str, Any]:
        """All that the result depends on, beside the settings; plain values, for JSON."""
        return {"files": [list(file) for file in self.files]}

    @property
    def record_path(self) -> Path:
        """The file that tells that the scan is complete."""
        return self.out / "records" / f"{self.name}.json"

    def convert(self) -> Record:
        """Do :func:`convert_scan`."""
        return convert_scan(self)


def convert_scan(task: ScanTask) -> Record:
    """Convert a scan; one of no use leaves a record without a volume.

    Args:
        task: The scan.

    Returns:
        The record that is also written to ``records/``: ``name``, ``inputs``, ``problems`` and
        ``volumes``, at most one (``name``, ``file_name``, ``size``, ``series_uid``, ``geometry``).

    Raises:
        OSError: A file cannot be read or written.
    """
    for path in task.stale:
        path.unlink(missing_ok=True)
    volumes, problems = [], []
    try:
        volume, uid, found = task.read(task.source)
        problems += [replace(problem, file=task.where) for problem in found]
        problems += _check(volume, task.where)
        volumes = [_store(task, volume, uid)]
    except InputError as error:
        # The report names the scan beside the reason.
        reason = str(error).removeprefix(str(task.source)).lstrip(": ")
        problems.append(
            Problem(
                task.where,
                getattr(error, "line", None),
                getattr(error, "reason", reason),
                "scan skipped",
                getattr(error, "kind", "unusable scan"),
            )
        )
    record = {
        "name": task.name,
        "inputs": task.inputs,
        "volumes": volumes,
        "problems": [problem.to_dict() for problem in problems],
    }
    write_json(task.record_path, record)
    return record


def _check(volume: Volume, where: str) -> list[Problem]:
    if not valid_spacing(volume.spacing):
        raise InputError(f"the spacing is {list(volume.spacing)}; expected mm of a CT")
    if not np.isfinite(volume.array).all():
        raise InputError("some voxels are NaN or infinite; expected Hounsfield units")
    if not volume.geometry.is_axis_aligned:
        text = f"the direction {np.round(volume.direction, 4).tolist()} is oblique"
        return [Problem(where, None, text, "resampled onto the world's axes", "oblique direction")]
    return []


def _store(task: ScanTask, volume: Volume, uid: str | None) -> dict[str, Any]:
    array = volume.array
    if array.dtype != np.int16:
        limits = np.iinfo(np.int16)
        array = np.rint(array.astype(np.float32)).clip(limits.min, limits.max).astype(np.int16)
    array = np.maximum(array, np.int16(AIR))
    volume = Volume.with_geometry(array, volume.geometry)
    stored = volume.resample_to_world_axes(task.spacing, AIR)
    path = task.out / "volumes" / (task.name + SUFFIX)
    save_volume(path, stored, CHUNK)
    return {
        "name": task.name,
        "file_name": path.name,
        "size": path.stat().st_size,
        "series_uid": uid or task.name,
        "geometry": stored.geometry.to_dict(),
    }
