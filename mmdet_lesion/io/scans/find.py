"""Discovery of scans: folders, files, loose DICOM slices, and lists in text files."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ..metaimage import metaimage_data_file
from ..png_slices import contiguous_runs, list_slices

__all__ = ["ScanSource", "find_scans", "find_scans_below", "is_dicom"]

LIST_SUFFIXES = (".txt", ".lst", ".list")
# Longer suffixes first, since the first match is removed from names.
_SINGLE_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")
IMAGE_SUFFIXES = (*_SINGLE_SUFFIXES, ".nhdr", ".hdr", ".img")


@dataclass(frozen=True)
class ScanSource:
    """Location of a scan.

    Args:
        path: File or folder.
        name: Short name: that of the file or folder without suffix, or, from
            :func:`find_scans_below`, the unique path in the folder.
        kind: ``'dicom'``, ``'image'``, ``'png'``, or ``'missing'`` for a path that does not exist.
        files: Slices of a DICOM scan that was given as separate files; from
            :func:`find_scans_below`, all files of the scan.
        slices: First and last slice in a folder of PNGs.
    """

    path: Path
    name: str
    kind: str
    files: tuple[Path, ...] = ()
    slices: tuple[int, int] | None = None


def is_dicom(path: Path) -> bool:
    """Return whether a file has the prefix of DICOM files."""
    with open(path, "rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def find_scans(inputs: str | os.PathLike | Sequence[str | os.PathLike]) -> list[ScanSource]:
    """Resolve paths to scans; only names and the first bytes of files are read.

    - A folder with slices ``001.png`` … is one of DeepLesion: one scan per run of numbers.
    - Any other folder is one of DICOM, including its subfolders.
    - A ``.txt``, ``.lst`` or ``.list`` file contains one path per line, relative to its folder.
      Blank lines and comments (``#``) are ignored.
    - DICOM files that are given separately are one scan.
    - Any other file is an image for SimpleITK.

    Args:
        inputs: One or more paths.

    Returns:
        The scans in the order of the paths. A path that does not exist is a scan of the kind
        ``'missing'``, and reading it raises an error.

    Raises:
        InputError: No path is given, or a list is empty.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths = [path for entry in inputs for path in _listed(Path(entry))]
    if not paths:
        raise InputError("no scan is given; expected one or more paths")
    sources: list[ScanSource] = []
    loose: list[Path] = []
    for path in paths:
        if path.is_dir():
            sources += _of_folder(path)
        elif not path.exists():
            sources.append(ScanSource(path, path.name, "missing"))
        elif is_dicom(path):
            if not loose:
                sources.append(ScanSource(path.parent, path.parent.name or "dicom", "dicom"))
                at = len(sources) - 1
            loose.append(path)
        else:
            sources.append(ScanSource(path, _stem(path), "image"))
    if loose:
        first = sources[at]
        name = first.name if len(loose) > 1 else loose[0].stem
        sources[at] = ScanSource(first.path, name, "dicom", files=tuple(loose))
    return sources


def find_scans_below(folder: Path) -> list[ScanSource]:
    """Find all scans in a folder and its subfolders, sorted by path.

    Each MetaImage, NIfTI and NRRD file is a scan. Each folder with DICOM files is a scan, without
    its subfolders. Hidden files and folders are ignored.

    Args:
        folder: The folder.

    Returns:
        The scans with unique names.
    """
    sources: list[ScanSource] = []
    names: set[str] = set()

    def add(relative: str, path: Path, kind: str, files: Sequence[Path]) -> None:
        stem = re.sub(r"[^\w.-]+", "_", relative).strip("_") or "scan"
        numbered = (f"{stem}-{number}" for number in itertools.count(2))
        name = next(name for name in itertools.chain([stem], numbered) if name not in names)
        names.add(name)
        sources.append(ScanSource(path, name, kind, tuple(files)))

    for parent, folders, entries in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(parent, name) for name in sorted(entries) if not name.startswith(".")]
        images = [path for path in paths if path.name.lower().endswith(_SINGLE_SUFFIXES)]
        for path in images:
            data = metaimage_data_file(path) if path.suffix.lower() == ".mhd" else None
            relative = path.relative_to(folder).with_name(_stem(path)).as_posix()
            add(relative, path, "image", [path, *([data] if data else [])])
        others = [
            path
            for path in paths
            if path not in images and path.suffix != ".raw" and path.is_file()
        ]
        # Only the first and last files are checked, since opening all would take too long.
        if any(
            path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)
            for path in others[:1] + others[-1:]
        ):
            relative = Path(parent).relative_to(folder).as_posix()
            add(relative, Path(parent), "dicom", others)
    return sources


def _listed(path: Path) -> list[Path]:
    """Return the path itself, or the paths in a list."""
    if path.suffix.lower() not in LIST_SUFFIXES or not path.is_file():
        return [path]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; expected one path per line") from None
    names = [line.partition("#")[0].strip() for line in lines]
    paths = [path.parent / name for name in names if name]
    if not paths:
        raise InputError(f"{path} lists no scan; expected one path per line")
    return paths


def _of_folder(path: Path) -> list[ScanSource]:
    name = path.resolve().name
    numbers = [number for number, _ in list_slices(path)[0]]
    if not numbers:
        return [ScanSource(path, name, "dicom")]
    runs = list(contiguous_runs(numbers))
    return [
        ScanSource(path, f"{name}_{run[0]:03d}-{run[-1]:03d}", "png", slices=(run[0], run[-1]))
        for run in runs
    ]


def _stem(path: Path) -> str:
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)] or path.name
    return path.stem
