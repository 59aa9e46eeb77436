"""Conversion of a scan of any format to a volume of the store."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..io import SUFFIX, Problem, StoredEntry, save_volume, write_json
from ..io.scans import find_scans, read_scan
from ..io.volume_store import file_checksum
from ..structures import Geometry, Volume
from .annotation_rows import valid_spacing
from .execution import Record, Task

__all__ = [
    "AIR",
    "CHUNK",
    "ScanTask",
    "check_volume",
    "convert_scan",
    "list_files",
    "store_scan",
    "store_slices",
    "to_stored_hu",
    "write_record",
]

AIR = -1024
"""HU of the air around a patient, and minimum of the stored values.

Scanners write lower values (-2000, -3024) outside their field of view. Interpolated with tissue,
they would leave a dark seam.
"""
CHUNK = (32, 64, 64)
"""Chunk shape, for which a crop reads little more than its own voxels."""

# Smaller files may be headers. They are hashed, since an edited spacing need not change their size.
_MAX_HEADER_SIZE = 64 * 1024

Reader = Callable[[Path], tuple[Volume, str | None, list[Problem]]]
"""Function that reads a scan and returns the volume, its series UID or None, and problems.

For a scan that cannot be converted it raises ``InputError``, whose attributes ``kind``, ``line``
and ``reason`` are reported if they exist.
"""


def list_files(raw: Path, paths: Sequence[Path]) -> tuple[tuple[str, int, str], ...]:
    """Return the name, size and (for small files) digest of those files of a scan that exist."""
    files = []
    for path in filter(Path.is_file, paths):
        size = path.stat().st_size
        small = size <= _MAX_HEADER_SIZE
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if small else ""
        files.append((Path(os.path.relpath(path, raw)).as_posix(), size, digest))
    return tuple(files)


@dataclass(frozen=True)
class ScanTask:
    """Input of :func:`convert_scan`.

    Args:
        name: Name of the volume.
        raw: The raw folder.
        source: File or folder that ``read`` reads.
        read: Reader of the scan, see :data:`Reader`; a function of a module, which can be pickled.
        out: Folder to write to.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        files: Result of :func:`list_files` for the files of the scan.
        part: Which of several scans of ``source`` it is; may be empty.
        options: Settings of the reader that the result depends on, as plain values.
    """

    name: str
    raw: Path
    source: Path
    read: Reader
    out: Path
    spacing: tuple[float, float, float]
    files: tuple[tuple[str, int, str], ...]
    part: str = ""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def where(self) -> str:
        """Path of the scan in the raw folder, for reports."""
        path = self.source.relative_to(self.raw).as_posix()
        return f"{path} ({self.part})" if self.part else path

    @property
    def inputs(self) -> dict[str, Any]:
        """Everything except the settings that the result depends on, as plain values."""
        return {"files": [list(file) for file in self.files], **dict(self.options)}

    @property
    def record_path(self) -> Path:
        """File that is written when the scan is complete."""
        return self.out / "records" / f"{self.name}.json"

    def convert(self) -> Record:
        """Call :func:`convert_scan`."""
        return convert_scan(self)


def convert_scan(task: ScanTask) -> Record:
    """Convert a scan.

    Args:
        task: The scan.

    Returns:
        The record that is also written to ``records/``, with ``name``, ``inputs``, ``problems`` and
        ``volumes``. These are one volume (``name``, ``file_name``, ``checksum``, ``series_uid``,
        ``geometry``), or none if the scan is invalid.

    Raises:
        OSError: A file cannot be read or written.
    """

    def convert(problems: list[Problem]) -> dict[str, Any]:
        volume, uid, found = task.read(task.source)
        problems += [replace(problem, file=task.where) for problem in found]
        problems += check_volume(volume, task.where)
        return _store(task, volume, uid)

    return write_record(task, task.source, convert)


def write_record(
    task: Task, source: Path, convert: Callable[[list[Problem]], dict[str, Any]]
) -> Record:
    """Convert a scan and write its record.

    Args:
        task: The task.
        source: File or folder of the scan.
        convert: Function that converts the scan, appends problems to a list, and returns the entry
            of the volume. For a scan that cannot be converted it raises ``InputError``, whose
            attributes ``kind``, ``line`` and ``reason`` are reported if they exist.

    Returns:
        The record, with ``name``, ``inputs``, ``problems`` and ``volumes`` (one, or none if the
        scan cannot be converted).

    Raises:
        OSError: A file cannot be read or written.
    """
    volumes: list[dict[str, Any]] = []
    problems: list[Problem] = []
    try:
        volumes = [convert(problems)]
    except InputError as error:
        # The report already names the scan.
        reason = str(error).removeprefix(str(source)).lstrip(": ")
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


def check_volume(volume: Volume, where: str) -> list[Problem]:
    """Check that a volume can be resampled to the world axes, and report an oblique one.

    Raises:
        InputError: The spacing is not that of a CT, or a voxel is not finite.
    """
    if not valid_spacing(volume.spacing):
        raise InputError(f"the spacing is {list(volume.spacing)} mm; expected that of a CT")
    if not np.isfinite(volume.array).all():
        raise InputError("some voxels are NaN or infinite; expected Hounsfield units")
    if not volume.geometry.is_axis_aligned:
        text = f"the direction {np.round(volume.direction, 4).tolist()} is oblique"
        return [Problem(where, None, text, "resampled onto the world's axes", "oblique direction")]
    return []


def to_stored_hu(volume: Volume) -> Volume:
    """Convert the voxels of a volume to int16 HU of at least :data:`AIR`."""
    array = volume.array
    if array.dtype != np.int16:
        limits = np.iinfo(np.int16)
        array = np.rint(array.astype(np.float32)).clip(limits.min, limits.max).astype(np.int16)
    return Volume.with_geometry(np.maximum(array, np.int16(AIR)), volume.geometry)


def store_slices(path: Path, volume: Volume, spacing: Sequence[float]) -> Geometry:
    """Store a volume for detectors on slices: x and y are resampled, slices stay as acquired.

    Args:
        path: The file to write.
        volume: The volume, with axial slices.
        spacing: Spacing of the store ``(x, y)`` in mm; 0 keeps that of the volume.

    Returns:
        The geometry of the stored volume.
    """
    x, y = (new or old for new, old in zip(spacing, volume.spacing[:2], strict=True))
    stored = to_stored_hu(volume).resample((x, y, volume.spacing[2]))
    save_volume(path, stored)
    return stored.geometry


def store_scan(
    source: str | os.PathLike, path: str | os.PathLike, spacing: Sequence[float] = (0.0, 0.0)
) -> StoredEntry:
    """Read a scan of any format and store it for detectors on slices, as :func:`store_slices`.

    The axes are permuted and flipped to those of the patient: slices are axial, x points to the
    left, y to the back and z to the head.

    Args:
        source: File or folder of one scan.
        path: The file to write, ``volumes/{name}.b2nd`` in the folder of the data set.
        spacing: Spacing of the store ``(x, y)`` in mm; 0 keeps that of the scan.

    Returns:
        The stored volume, whose ``boxes_to_store`` converts boxes of the scan.

    Raises:
        InputError: There is no scan or several, or the scan cannot be read.
    """
    path = Path(path)
    found = find_scans(source)
    if len(found) != 1:
        raise InputError(f"{source} contains {len(found)} scans; expected one")
    volume = read_scan(found[0]).volume
    volume = volume.permute(volume.geometry.symmetry_to_patient())
    stored = store_slices(path, volume, spacing)
    return StoredEntry(path.name.removesuffix(SUFFIX), path.name, 0, stored, volume.geometry)


def _store(task: ScanTask, volume: Volume, uid: str | None) -> dict[str, Any]:
    volume = to_stored_hu(volume)
    stored = volume.resample_to_world_axes(task.spacing, AIR)
    path = task.out / "volumes" / (task.name + SUFFIX)
    save_volume(path, stored, CHUNK)
    return {
        "name": task.name,
        "file_name": path.name,
        "checksum": file_checksum(path),
        "series_uid": uid or task.name,
        "geometry": stored.geometry.to_dict(),
    }
