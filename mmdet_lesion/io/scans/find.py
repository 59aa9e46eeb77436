"""Discovery of scans: folders, files, loose DICOM slices, and lists in text files."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...errors import InputError
from ..metaimage import metaimage_data_file
from ..png_slices import contiguous_runs, list_slices

__all__ = [
    "ScanSource",
    "find_scans",
    "find_scans_below",
    "is_dicom",
    "list_files_below",
    "unique_names",
]

LIST_SUFFIXES = (".txt", ".lst", ".list")
# Longer suffixes first, since the first match is removed from names.
_SINGLE_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")
IMAGE_SUFFIXES = (*_SINGLE_SUFFIXES, ".nhdr", ".hdr", ".img")
# Longest name in bytes; file systems allow 255 with suffixes and temporary names.
_MAX_NAME = 120


@dataclass(frozen=True)
class ScanSource:
    """Location of a scan.

    Args:
        path: File or folder.
        name: Short name: that of the file or folder without suffix, or, from
            :func:`find_scans_below`, the unique path in the folder.
        kind: ``'dicom'``, ``'image'``, ``'png'``; ``'missing'`` for a path that does not exist,
            ``'special'`` for a pipe or device.
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
        The scans in the order of the paths. A path that is not a file or folder is a scan of the
        kind ``'missing'`` or ``'special'``, and reading it raises an error.

    Raises:
        InputError: No path is given, or a list is empty.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if any(not os.fspath(entry) for entry in inputs):
        raise InputError("a path is empty; expected the path of a scan")
    paths = [path for entry in inputs for path in _listed(Path(entry))]
    if not paths:
        raise InputError("no scan is given; expected one or more paths")
    sources: list[ScanSource] = []
    loose: list[Path] = []
    for path in paths:
        if path.is_dir():
            sources += _of_folder(path)
        elif not path.is_file():
            # A device or pipe would block the process that opens it.
            sources.append(ScanSource(path, path.name, "special" if path.exists() else "missing"))
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

    def add(relative: str, path: Path, kind: str, files: Sequence[Path]) -> None:
        sources.append(ScanSource(path, relative, kind, tuple(files)))

    for parent, folders, entries in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths = [Path(parent, name) for name in sorted(entries) if not name.startswith(".")]
        paths = [path for path in paths if path.is_file()]
        images = [path for path in paths if path.name.lower().endswith(_SINGLE_SUFFIXES)]
        for path in images:
            data = metaimage_data_file(path) if path.suffix.lower() == ".mhd" else None
            relative = path.relative_to(folder).with_name(_stem(path)).as_posix()
            add(relative, path, "image", [path, *([data] if data else [])])
        others = [path for path in paths if path not in images and path.suffix != ".raw"]
        # Only the first and last files are checked, since opening all would take too long.
        if any(
            path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)
            for path in others[:1] + others[-1:]
        ):
            relative = Path(parent).relative_to(folder).as_posix()
            add(relative, Path(parent), "dicom", others)
    names = unique_names([source.name for source in sources])
    return [replace(source, name=name) for source, name in zip(sources, names, strict=True)]


def unique_names(wanted: Sequence[str]) -> list[str]:
    """Convert names to different names of files.

    Characters other than letters, digits, ``.``, ``_`` and ``-`` are replaced. Repeated names get a
    number, such that names that need no change keep theirs. Upper and lower case count as equal.

    Args:
        wanted: Names, or paths with ``/``.

    Returns:
        A name for each, in the same order.
    """
    stems = [_file_name(name) for name in wanted]
    taken: set[str] = set()
    reserved = {stem.lower() for stem in stems}
    names = []
    for stem in stems:
        name = stem
        if name.lower() in taken:
            numbered = (f"{stem}-{number}" for number in itertools.count(2))
            name = next(n for n in numbered if n.lower() not in taken | reserved)
        taken.add(name.lower())
        names.append(name)
    return names


def _file_name(text: str) -> str:
    """Return a name that is neither hidden nor too long and contains no separators."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("_").lstrip(".") or "scan"
    if len(name.encode()) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name.encode()[: _MAX_NAME - 9].decode(errors='ignore')}-{digest}"


def list_files_below(folder: Path) -> list[Path]:
    """List the regular files in a folder and its subfolders, sorted by path.

    Symbolic links are followed, and each folder is listed once, even if links lead to it again.
    """
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        stat = os.stat(parent)
        if (stat.st_dev, stat.st_ino) in visited:
            folders.clear()
            continue
        visited.add((stat.st_dev, stat.st_ino))
        files += [path for name in names if (path := Path(parent, name)).is_file()]
    return sorted(files)


def _listed(path: Path) -> list[Path]:
    """Return the path itself, or the paths in a list."""
    if path.suffix.lower() not in LIST_SUFFIXES or not path.is_file():
        return [path]
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text file; expected one path per line") from None
    names = [line.partition("#")[0].strip() for line in lines]
    if any("\0" in name for name in names):
        raise InputError(f"{path} is not a text file; expected one path per line")
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
