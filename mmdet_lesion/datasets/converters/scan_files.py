"""Finding and reading scans of any format in a folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ...errors import InputError
from ...io import Problem, read_metaimage, read_metaimage_header
from ...structures import Volume

__all__ = ["FoundScan", "find_scans", "read_dicom_folder", "read_image_file"]

_SUFFIXES = (".mhd", ".mha", ".nii", ".nii.gz", ".nrrd")
_DICOM_MAGIC = (128, b"DICM")
# Share of the usual gap by which another one differs before a slice is missing or doubled.
_SAME_GAP = 0.05
_POSITION, _ORIENTATION, _SERIES_UID = "0020|0032", "0020|0037", "0020|000e"


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

    @property
    def is_dicom(self) -> bool:
        """Whether it is a folder of DICOM slices."""
        return self.source.is_dir()


def _name(path: str) -> str:
    return re.sub(r"[^\w.-]+", "_", path).strip("_") or "scan"


def _is_dicom(path: Path) -> bool:
    if path.suffix.lower() in (".dcm", ".ima"):
        return True
    offset, magic = _DICOM_MAGIC
    with open(path, "rb") as file:
        return file.read(offset + len(magic))[offset:] == magic


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
        others = [path for path in paths if path not in images and path.suffix != ".raw"]
        if any(_is_dicom(path) for path in others[:1] + others[-1:]):
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


def read_image_file(path: Path) -> tuple[Volume, str | None, list[Problem]]:
    """Read a MetaImage, NIfTI or NRRD file; see :data:`.scan.Reader`."""
    if path.suffix.lower() in (".mhd", ".mha"):
        return read_metaimage(path), None, []
    try:
        return Volume.from_sitk(sitk.ReadImage(str(path))), None, []
    except RuntimeError as error:
        raise InputError(f"cannot be read: {str(error).strip().splitlines()[-1]}") from None


def read_dicom_folder(path: Path) -> tuple[Volume, str | None, list[Problem]]:
    """Read the series with the most slices of a folder, sorted by their position.

    See :data:`.scan.Reader`.

    Raises:
        InputError: There is no series of two slices or more, it cannot be read, or slices are
            missing or doubled.
    """
    reader = sitk.ImageSeriesReader()
    series = {
        uid: reader.GetGDCMSeriesFileNames(str(path), uid)
        for uid in reader.GetGDCMSeriesIDs(str(path))
    }
    if not series:
        raise InputError("holds no DICOM series that can be read")
    chosen = max(sorted(series), key=lambda uid: len(series[uid]))
    files = series[chosen]
    problems = [
        Problem(path.name, None, f"also holds a series of {len(series[uid])} slices",
                f"the one of {len(files)} slices used", "several series")
        for uid in sorted(series)
        if uid != chosen
    ]  # fmt: skip
    _check_positions(files)
    # ITK warns of gaps that differ by rounding; those that matter were checked.
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    reader.SetFileNames(files)
    try:
        volume = Volume.from_sitk(reader.Execute())
        return volume, _tags(files[0]).get(_SERIES_UID), problems
    except RuntimeError as error:
        raise InputError(f"cannot be read: {str(error).strip().splitlines()[-1]}") from None


def _tags(file: str) -> dict[str, str]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(file)
    reader.ReadImageInformation()
    keys = set(reader.GetMetaDataKeys())
    return {
        key: reader.GetMetaData(key).strip().strip("\0")
        for key in (_POSITION, _ORIENTATION, _SERIES_UID)
        if key in keys
    }


def _check_positions(files: tuple[str, ...]) -> None:
    if len(files) < 2:
        raise InputError("is one slice; expected two or more")
    rows = [_tags(file) for file in files]
    try:
        positions = np.array([[float(v) for v in r[_POSITION].split("\\")] for r in rows])
        across, down = np.array(rows[0][_ORIENTATION].split("\\"), dtype=float).reshape(2, 3)
    except (KeyError, ValueError):
        raise InputError("has slices that do not tell their position") from None
    gaps = np.diff(positions @ np.cross(across, down))
    usual = np.median(gaps)
    if usual <= 0 or (np.abs(gaps - usual) > _SAME_GAP * usual).any():
        raise InputError(
            f"has slices that are missing or doubled: gaps of {gaps.min():.2f} to {gaps.max():.2f} "
            f"mm, most of them {usual:.2f}"
        )
