"""Search of a folder and its subfolders for scans."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from ..metaimage import metaimage_data_file
from ..png_slices import contiguous_runs, is_16bit_png, slice_number
from .dicom_series import DicomSeries, group_by_series, is_dicom
from .source import Discovery, ScanSource, SkippedPath

__all__ = [
    "IMAGE_SUFFIXES",
    "dicom_sources",
    "image_source",
    "list_files_below",
    "png_sources",
    "search_folder",
]

# Longer suffixes first, since the first match is removed from names.
_SINGLE_SUFFIXES = (".nii.gz", ".nii", ".mhd", ".mha", ".nrrd", ".nhdr")
IMAGE_SUFFIXES = (*_SINGLE_SUFFIXES, ".hdr", ".img")
_MAX_HEADER = 64 * 1024
_DATA_FILE = re.compile(rb"^data ?file: *(\S.*?)\r?$", re.IGNORECASE | re.MULTILINE)


def search_folder(folder: Path) -> Discovery:
    """Find all scans in a folder and its subfolders.

    - Each MetaImage, NIfTI and NRRD file is a scan, and each pair of ``.hdr`` and ``.img``.
    - Each CT series of DICOM files in one folder is a scan; localizers are none.
    - Each run of 16-bit slices ``001.png`` … is a scan.

    Symbolic links are followed, and paths are those through the links. A folder or an image file to
    which several paths lead is used once. Hidden files and folders are skipped.

    Args:
        folder: The folder.

    Returns:
        The scans, named after their file or folder and sorted by path, and all other paths.
    """
    found = Discovery()
    folders_seen: dict[tuple[int, int], Path] = {}
    images_seen: dict[tuple[int, int], Path] = {}

    def skip(path: Path, reason: str) -> None:
        found.skipped.append(SkippedPath(path, reason))

    def unreadable(error: OSError) -> None:
        skip(Path(os.fsdecode(error.filename)), f"cannot be read: {error.strerror}")

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=unreadable):
        here = Path(parent)
        first = folders_seen.setdefault(_identity(here), here)
        if first is not here:
            folders.clear()
            skip(here, f"the same folder as {os.path.relpath(first, folder)}")
            continue
        for name in sorted(name for name in (*folders, *names) if name.startswith(".")):
            skip(here / name, "hidden")
        # Links last, since a folder is used under the path at which it is found first.
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".")),
            key=lambda name: (os.path.islink(here / name), name),
        )
        files = []
        for path in sorted(here / name for name in names if not name.startswith(".")):
            if not path.is_file():
                missing = path.is_symlink() and not path.exists()
                skip(path, "a link to a missing file" if missing else "a pipe, device or socket")
            elif path.name.lower().endswith(_SINGLE_SUFFIXES) and (
                (same := images_seen.setdefault(_identity(path), path)) is not path
            ):
                skip(path, f"the same file as {os.path.relpath(same, folder)}")
            else:
                files.append(path)
        inside = _search_files(here, files)
        found.scans += inside.scans
        found.skipped += inside.skipped
    used = {file for scan in found.scans for file in scan.files}
    found.skipped = [one for one in found.skipped if one.path not in used]
    return found


def _identity(path: Path) -> tuple[int, int]:
    stat = os.stat(path)
    return stat.st_dev, stat.st_ino


def _search_files(folder: Path, files: Sequence[Path]) -> Discovery:
    """Sort the files of a folder into scans and others."""
    images = [image_source(path) for path in files if _is_image(path)]
    rest = sorted(set(files) - {file for scan in images for file in scan.files})
    numbered = [path for path in rest if slice_number(path.name) is not None]
    dicom, skipped = [], []
    for path in sorted(set(rest) - set(numbered)):
        try:
            if is_dicom(path):
                dicom.append(path)
            else:
                skipped.append(SkippedPath(path, "not in a format of scans"))
        except OSError as error:
            skipped.append(SkippedPath(path, f"cannot be read: {error.strerror}"))
    scans, others = dicom_sources(folder, group_by_series(dicom))
    if (images or scans) and not all(map(is_16bit_png, numbered)):
        # Screenshots beside a scan.
        skipped += [SkippedPath(path, "not a 16-bit slice") for path in numbered]
        numbered = []
    scans = [*images, *scans, *png_sources(folder, numbered)]
    return Discovery(scans, sorted([*skipped, *others], key=lambda one: (one.path, one.reason)))


def _is_image(path: Path) -> bool:
    name = path.name.lower()
    return name.endswith(_SINGLE_SUFFIXES) or (
        name.endswith(".hdr") and path.with_suffix(".img").is_file()
    )


def image_source(path: Path) -> ScanSource:
    """Return the scan of an image file, with the file of its voxels."""
    data = _data_file(path)
    return ScanSource(path, _stem(path), "image", (path, *([data] if data else [])))


def _data_file(path: Path) -> Path | None:
    """Return the file of the voxels of a header, or None."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".mhd":
            return metaimage_data_file(path)
        if suffix == ".nhdr":
            with open(path, "rb") as file:
                match = _DATA_FILE.search(file.read(_MAX_HEADER))
            return path.parent / os.fsdecode(match[1]) if match else None
    except OSError:
        # Reading the scan reports it.
        return None
    return path.with_suffix(".img") if suffix == ".hdr" else None


def _stem(path: Path) -> str:
    for suffix in IMAGE_SUFFIXES:
        if path.name.lower().endswith(suffix):
            return path.name[: -len(suffix)] or path.name
    return path.stem


def folder_name(folder: Path) -> str:
    """Return the name of a folder, also of ``.``, without resolving links."""
    return Path(os.path.abspath(folder)).name


def dicom_sources(
    folder: Path, series: Sequence[DicomSeries], name: str | None = None
) -> tuple[list[ScanSource], list[SkippedPath]]:
    """Return the CT series of a folder as scans, and the other DICOM files.

    Args:
        folder: The folder.
        series: Groups of its files.
        name: Name of a single scan; by default that of the folder.

    Returns:
        Scans, named after the folder and, if there are several, the number of the series.
    """
    name = name or folder_name(folder)
    scans = [one for one in series if one.is_ct]
    labels = [_label(one, scans) for one in scans]
    sources = [
        ScanSource(
            folder,
            name if len(scans) == 1 else f"{name}_s{label}",
            "dicom",
            one.files,
            part="" if len(scans) == 1 else f"series {label}",
            series=one.uid,
        )
        for one, label in zip(scans, labels)
    ]
    skipped = []
    for one in series:
        if one in scans:
            continue
        what = f"series {_label(one, series)} " if one.uid and len(series) > 1 else ""
        if one.localizer and one.modality == "CT":
            reason = f"{what}is a localizer"
        elif one.modality:
            reason = f"{what}has the modality {one.modality}"
        else:
            reason = "DICOM without a modality and a series, such as a directory"
        path = one.files[0] if len(one.files) == 1 else folder
        skipped.append(SkippedPath(path, reason, len(one.files), bool(one.modality)))
    return sources, skipped


def _label(series: DicomSeries, others: Sequence[DicomSeries]) -> str:
    """Return the number of a series, with the end of its UID if other ones have the same number."""
    alike = sum(one.number == series.number for one in others)
    tail = series.uid[-8:].strip(".") or "without-UID"
    if not series.number:
        return tail
    return series.number if alike == 1 else f"{series.number}-{tail}"


def png_sources(folder: Path, files: Iterable[Path]) -> list[ScanSource]:
    """Return each run of numbered slices of a folder as a scan."""
    by_number = {slice_number(path.name): path for path in files}
    numbers = sorted(number for number in by_number if number is not None)
    return [
        ScanSource(
            folder,
            f"{folder_name(folder)}_{run[0]:03d}-{run[-1]:03d}",
            "png",
            tuple(by_number[number] for number in run),
            (run[0], run[-1]),
            part=f"slices {run[0]}-{run[-1]}",
        )
        for run in contiguous_runs(numbers)
    ]


def list_files_below(folder: Path) -> list[Path]:
    """List the regular files in a folder and its subfolders, sorted by path.

    Symbolic links are followed, and each folder is listed once, even if links lead to it again.
    """
    files: list[Path] = []
    visited: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        identity = _identity(Path(parent))
        if identity in visited:
            folders.clear()
            continue
        visited.add(identity)
        files += [path for name in names if (path := Path(parent, name)).is_file()]
    return sorted(files)
