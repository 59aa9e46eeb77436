"""Discovery of scans: folders, files, loose slices, and lists in text files."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ...errors import InputError
from ..png_slices import is_16bit_png, slice_number
from .dicom_series import group_by_series, is_dicom
from .folder import dicom_sources, folder_name, image_source, png_sources, search_folder
from .names import distinct_names, unique_names
from .source import Discovery, ScanSource

__all__ = ["discover_scans", "discover_scans_below", "find_scans", "find_scans_below"]

LIST_SUFFIXES = (".txt", ".lst", ".list")

Inputs = str | os.PathLike | Sequence[str | os.PathLike]


def find_scans(inputs: Inputs, series: str | None = None) -> list[ScanSource]:
    """Resolve paths to scans; arguments and scans are those of :func:`discover_scans`."""
    return discover_scans(inputs, series).scans


def discover_scans(inputs: Inputs, series: str | None = None) -> Discovery:
    """Resolve paths to scans; of files, only names and the first bytes are read.

    - A folder is searched with its subfolders (:func:`.folder.search_folder`): each CT series of
      DICOM files in one folder is a scan, each NIfTI, MetaImage and NRRD file, and each run of
      DeepLesion's slices ``001.png`` ….
    - A ``.txt``, ``.lst`` or ``.list`` file contains one path per line, relative to its folder.
      Blank lines and comments (``#``) are ignored.
    - DICOM files and PNG slices that are given separately are grouped in the same way, by folder
      and series or run.
    - Any other file is an image for SimpleITK.

    Args:
        inputs: One or more paths.
        series: Series Instance UID; DICOM scans of other series are skipped.

    Returns:
        The scans in the order of the paths. A path that is not a file or folder is a scan of the
        kind ``'missing'`` or ``'special'``, a folder without scans one of the kind ``'dicom'``, and
        reading them raises an error. Scans with equal names have their folders in front.

    Raises:
        InputError: No path is given, a list contains no path of a scan, or no scan has the series.
    """
    if isinstance(inputs, (str, os.PathLike)):
        inputs = [inputs]
    if any(not os.fspath(entry) for entry in inputs):
        raise InputError("a path is empty; expected the path of a scan")
    paths = [path for entry in inputs for path in _listed(Path(entry))]
    if not paths:
        raise InputError("no scan is given; expected one or more paths")
    found = Discovery()
    # Scans that start at a path, so that groups of loose slices stand at their first file.
    slots: list[list[ScanSource]] = []
    loose: dict[tuple[str, Path], tuple[list[ScanSource], dict[Path, None]]] = {}
    for path in paths:
        slot: list[ScanSource] = []
        kind = _loose_kind(path)
        if kind:
            slot, files = loose.setdefault((kind, path.parent), (slot, {}))
            files[path] = None
        elif path.is_dir():
            inside = search_folder(path)
            slot += inside.scans or [ScanSource(path, folder_name(path), "dicom")]
            found.skipped += inside.skipped
        elif path.is_file():
            slot.append(image_source(path))
        else:
            # A device or pipe would block the process that opens it.
            slot.append(ScanSource(path, path.name, "special" if path.exists() else "missing"))
        slots.append(slot)
    for (kind, folder), (slot, files) in loose.items():
        slot += _of_loose_files(kind, folder, list(files))
    unique = {id(slot): slot for slot in slots}
    found.scans = _with_warnings([scan for slot in unique.values() for scan in slot])
    if series is not None:
        found.scans = _of_series(found.scans, series)
    homes = [_home(scan) for scan in found.scans]
    names = distinct_names(homes, [scan.name for scan in found.scans])
    found.scans = [replace(scan, name=name) for scan, name in zip(found.scans, names)]
    return found


def find_scans_below(folder: Path) -> list[ScanSource]:
    """Find all scans in a folder; they are those of :func:`discover_scans_below`."""
    return discover_scans_below(folder).scans


def discover_scans_below(folder: Path) -> Discovery:
    """Find all scans in a folder and its subfolders, as :func:`.folder.search_folder` does.

    Args:
        folder: The folder.

    Returns:
        The scans, whose names are their paths in the folder and can be names of files, and all
        other paths.
    """
    found = search_folder(folder)
    paths = []
    for scan in found.scans:
        inner = os.path.relpath(scan.path, folder)
        parent = "" if inner == "." else os.path.dirname(inner)
        paths.append(f"{parent}/{scan.name}")
    scans = _with_warnings(found.scans)
    found.scans = [replace(scan, name=name) for scan, name in zip(scans, unique_names(paths))]
    return found


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
    if not any(map(os.path.lexists, paths)):
        # Probably a text about the scans.
        raise InputError(
            f"{path} lists no scan: {paths[0]} does not exist, nor does any other path in it; "
            "expected one path per line"
        )
    return paths


def _loose_kind(path: Path) -> str:
    """Return the kind of a file that is one slice of a scan, or ``''``."""
    if not path.is_file():
        return ""
    if slice_number(path.name) is not None and is_16bit_png(path):
        return "png"
    return "dicom" if is_dicom(path) else ""


def _of_loose_files(kind: str, folder: Path, files: list[Path]) -> list[ScanSource]:
    if kind == "png":
        return png_sources(folder, files)
    groups = group_by_series(files)
    name = files[0].stem if len(files) == 1 else None
    # Files of another modality were named by the user, so reading them should fail.
    return dicom_sources(folder, groups, name)[0] or [
        ScanSource(folder, name or folder_name(folder), "dicom", tuple(files))
    ]


def _home(scan: ScanSource) -> Path:
    """Return the folder whose name may be put in front of the scan's name."""
    single = scan.kind == "dicom" and len(scan.files) == 1
    return scan.path if single else scan.path.parent


def _with_warnings(scans: list[ScanSource]) -> list[ScanSource]:
    """Add a warning to scans of series that are spread over several folders."""
    folders: dict[str, list[Path]] = defaultdict(list)
    for scan in scans:
        if scan.series:
            folders[scan.series].append(scan.path)
    result = []
    for scan in scans:
        # Without the scan itself, one other place is enough for a warning.
        places = list(folders.get(scan.series or "", ()))
        if len(places) > 1:
            places.remove(scan.path)
            text = f"files of this series are also in {places[0]}, as a scan of their own"
            scan = replace(scan, warnings=(*scan.warnings, text))
        result.append(scan)
    return result


def _of_series(scans: list[ScanSource], series: str) -> list[ScanSource]:
    kept = [scan for scan in scans if scan.kind != "dicom" or scan.series in (None, series)]
    if not any(scan.series == series for scan in kept):
        known = sorted({scan.series for scan in scans if scan.series})
        expected = f"expected one of {', '.join(known)}" if known else "expected DICOM files of it"
        raise InputError(f"no scan has the series {series}; {expected}")
    return kept
