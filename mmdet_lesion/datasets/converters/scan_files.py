"""Finding and reading scans of any format in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ...errors import InputError
from ...io import Problem, read_metaimage, read_metaimage_header
from ...io.scans import ScanSource, read_scan
from ...io.scans.find import is_dicom
from ...structures import Volume

__all__ = ["FoundScan", "find_scans", "read_any"]

_SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd")


@dataclass(frozen=True)
class FoundScan:
    """A scan in a folder.

    Args:
        name: Its path within the folder, as the name of a file.
        source: The file, or the folder of a DICOM series.
        files: All files that it consists of.
    """

    name: str
    source: Path
    files: tuple[Path, ...]


def _name(path: str) -> str:
    return re.sub(r"[^\w.-]+", "_", path).strip("_") or "scan"


def _may_be_slice(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix != ".raw"


def _looks_like_dicom(path: Path) -> bool:
    return path.suffix.lower() in (".dcm", ".ima") or is_dicom(path)


def find_scans(raw: Path) -> Iterator[FoundScan]:
    """Look for scans in a folder and the folders in it.

    MetaImage, NIfTI and NRRD files are a scan each, a folder with DICOM files is one as a whole.
    Hidden files and folders are left out.

    Args:
        raw: The folder.

    Yields:
        The scans by path; two whose names would be one get a number.
    """
    taken: dict[str, int] = {}

    def named(relative: str) -> str:
        name = _name(relative)
        taken[name] = taken.get(name, 0) + 1
        return name if taken[name] == 1 else f"{name}-{taken[name]}"

    for folder, folders, names in os.walk(raw):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        paths = [Path(folder, name) for name in sorted(names) if not name.startswith(".")]
        images = [path for path in paths if path.name.lower().endswith(_SUFFIXES)]
        for path in images:
            relative = path.relative_to(raw).as_posix()
            suffix = next(s for s in _SUFFIXES[::-1] if relative.lower().endswith(s))
            yield FoundScan(named(relative[: -len(suffix)]), path, _files_of(path))
        # A series is told by one of its files: opening all of them would take long.
        others = [path for path in paths if path not in images and _may_be_slice(path)]
        if any(_looks_like_dicom(path) for path in others[:1] + others[-1:]):
            relative = Path(folder).relative_to(raw).as_posix()
            yield FoundScan(named(relative), Path(folder), tuple(others))


def _files_of(path: Path) -> tuple[Path, ...]:
    if path.suffix.lower() == ".mhd":
        try:
            data = read_metaimage_header(path).data
        except InputError:
            # Reading it says what is wrong.
            data = None
        if data is not None:
            return path, data
    return (path,)


def read_any(path: Path) -> tuple[Volume, str | None, list[Problem]]:
    """Read a file, or a folder of DICOM slices; see :data:`.scan.Reader`.

    Raises:
        InputError: It is no scan that can be read, or a single slice.
    """
    if path.suffix.lower() in (".mhd", ".mha"):
        return read_metaimage(path), None, []
    files: tuple[Path, ...] = ()
    if path.is_dir():
        files = tuple(sorted(file for file in path.iterdir() if _may_be_slice(file)))
    kind = "dicom" if files else "image"
    try:
        scan = read_scan(ScanSource(path, path.name, kind, files))
    except InputError as error:
        # Reports name the scan beside the reason.
        raise InputError(str(error).removeprefix(f"{path}").lstrip(": ")) from None
    if scan.volume.shape[0] < 2:
        raise InputError("is one slice; expected two or more")
    problems = [
        Problem(path.name, None, text, "scan used all the same", "odd scan")
        for text in scan.warnings
    ]
    return scan.volume, scan.series_uid, problems
