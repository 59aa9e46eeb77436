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
#: Double suffixes first, so that a name loses all of it.
_SINGLE_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd")
IMAGE_SUFFIXES = (*_SINGLE_SUFFIXES, ".nhdr", ".hdr", ".img")


@dataclass(frozen=True)
class ScanSource:
    """One scan that was asked for, not read yet.

    Args:
        path: File or folder.
        name: A short name, that of the file or folder without its suffix; of scans below a folder
            their path in it, each once.
        kind: ``'dicom'``, ``'image'``, ``'png'``, or ``'missing'`` for a path that does not exist.
        files: The slices of a DICOM scan that was given file by file; of scans below a folder all
            files that the scan consists of.
        slices: First and last slice of a folder of PNGs.
    """

    path: Path
    name: str
    kind: str
    files: tuple[Path, ...] = ()
    slices: tuple[int, int] | None = None


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM files do."""
    with open(path, "rb") as file:
        file.seek(128)
        return file.read(4) == b"DICM"


def find_scans(inputs: str | os.PathLike | Sequence[str | os.PathLike]) -> list[ScanSource]:
    """Resolve paths to scans; nothing but names and the first bytes of files is read.

    - A folder with slices ``001.png`` … is DeepLesion's: one scan for every run of numbers.
    - Any other folder is DICOM's, its sub-folders included.
    - A ``.txt``, ``.lst`` or ``.list`` file names one path a line, relative to its own folder;
      blank lines and what follows ``#`` do not count.
    - DICOM files given one by one are one scan together.
    - Every other file is an image for SimpleITK.

    Args:
        inputs: One path or several.

    Returns:
        The scans in the order of the paths. A path that does not exist is a scan of the kind
        ``'missing'``, which fails on its own when it is read.

    Raises:
        InputError: There is no path, or a list names none.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    paths = [path for entry in inputs for path in _listed(Path(entry))]
    if not paths:
        raise InputError("no scan was given; expected at least one path")
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
    """Find all scans in a folder and its sub-folders, sorted by path.

    MetaImage, NIfTI and NRRD files are one scan each; a folder that holds DICOM files is one scan,
    without its sub-folders. Hidden files and folders are left out.

    Args:
        folder: The folder.

    Returns:
        The scans. Their names are unique.
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
        # A series is recognized by one of its files: opening all of them would take long.
        if any(
            path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)
            for path in others[:1] + others[-1:]
        ):
            relative = Path(parent).relative_to(folder).as_posix()
            add(relative, Path(parent), "dicom", others)
    return sources


def _listed(path: Path) -> list[Path]:
    """The path itself, or the paths that a list names."""
    if path.suffix.lower() not in LIST_SUFFIXES or not path.is_file():
        return [path]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is no text; expected one path a line") from None
    names = [line.partition("#")[0].strip() for line in lines]
    paths = [path.parent / name for name in names if name]
    if not paths:
        raise InputError(f"{path} names no scan; expected one path a line")
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
