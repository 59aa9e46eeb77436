"""Verification of a volume store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..io import SUFFIX, read_json
from ..io.volume_store import file_checksum, load_volume
from ..processes import end_with_parent
from ..progress import track

__all__ = ["StoreReport", "check_store"]


@dataclass
class StoreReport:
    """Result of :func:`check_store`.

    Args:
        volumes: Number of volumes.
        annotation_files: Number of annotation files.
        problems: A sentence for each problem.
    """

    volumes: int
    annotation_files: int
    problems: list[str]


def check_store(folder: str | os.PathLike, workers: int = 1, progress: bool = True) -> StoreReport:
    """Verify the checksums of all volumes, and that records and annotation files fit them.

    Args:
        folder: Output folder of a converter.
        workers: Number of processes.
        progress: Whether to show a progress bar.

    Raises:
        InputError: The folder is not a volume store.
    """
    folder = Path(folder)
    if not (folder / "volumes").is_dir():
        raise InputError(f"{folder} has no folder 'volumes'; expected the output of a converter")
    paths = sorted((folder / "volumes").glob(f"*{SUFFIX}"))
    if not paths:
        raise InputError(f"{folder / 'volumes'} contains no volume; expected {SUFFIX} files")
    sizes: dict[str, list[int]] = {}
    problems = []
    for path, (size, problem) in zip(paths, _check_all(paths, workers, progress), strict=True):
        sizes[path.name] = size
        problems += [problem] if problem else []
    for path in sorted((folder / "records").glob("*.json")):
        problems += _check_record(path, folder / "volumes", sizes)
    files = sorted((folder / "annotations").glob("*.json"))
    for path in files:
        problems += _check_annotations(path, sizes)
    return StoreReport(len(paths), len(files), problems)


def _check_all(paths: list[Path], workers: int, progress: bool) -> Iterator[tuple[list[int], str]]:
    if workers == 1:
        yield from track(
            map(_check_volume, paths), len(paths), "check", "volumes", disable=not progress
        )
        return
    with ProcessPoolExecutor(
        workers, get_context("fork"), initializer=end_with_parent, initargs=(os.getpid(),)
    ) as pool:
        found = pool.map(_check_volume, paths, chunksize=4)
        yield from track(found, len(paths), "check", "volumes", disable=not progress)


def _check_volume(path: Path) -> tuple[list[int], str]:
    """Return the size (D, H, W) of a volume, and a problem or ''."""
    try:
        return list(load_volume(path).shape), ""
    except (InputError, OSError, MemoryError) as error:
        return [], str(error) or f"{path} is too large for the memory"


def _check_record(path: Path, volumes: Path, sizes: dict[str, list[int]]) -> Iterator[str]:
    try:
        listed = read_json(path)["volumes"]
        for volume in listed:
            name = volume["file_name"]
            if name not in sizes:
                yield f"{volumes / name} is missing; {path.name} lists it"
            elif sizes[name] and file_checksum(volumes / name) != volume["checksum"]:
                yield f"{volumes / name} is not the file that the conversion has written"
    except (InputError, KeyError, TypeError) as error:
        yield f"{path} is not a record of a conversion ({error})"


def _check_annotations(path: Path, sizes: dict[str, list[int]]) -> Iterator[str]:
    try:
        content = read_json(path)
        entries = content["volumes"] if "volumes" in content else content["data_list"]
    except (InputError, KeyError, TypeError) as error:
        yield f"{path} is not an annotation file ({error})"
        return
    for entry in entries:
        name = _file_name(entry)
        if name not in sizes:
            yield f"{path} lists the volume {name}, which is missing"
        elif sizes[name] and entry["geometry"]["shape"] != sizes[name]:
            yield (
                f"{path} has the shape {entry['geometry']['shape']} for the volume {name}, which "
                f"has {sizes[name]}"
            )


def _file_name(entry: dict[str, Any]) -> str:
    return entry.get("file_name") or f"{entry.get('volume')}{SUFFIX}"
