"""Locations of scans, and of paths that are no scans."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Discovery", "ScanSource", "SkippedPath"]


@dataclass(frozen=True)
class ScanSource:
    """Location of a scan.

    Args:
        path: File or folder.
        name: Name that tells the scans of a search apart.
        kind: ``'dicom'``, ``'image'``, ``'png'``; ``'missing'`` for a path that does not exist,
            ``'special'`` for a pipe or device.
        files: All files of the scan. Empty for a folder whose DICOM files are found by reading it.
        slices: First and last slice in a folder of PNGs.
        part: Which of several scans of a folder it is, such as ``'series 3'``; may be empty.
        series: Series Instance UID of DICOM files that were read on discovery.
        warnings: Irregularities that were noticed on discovery, one sentence each.
    """

    path: Path
    name: str
    kind: str
    files: tuple[Path, ...] = ()
    slices: tuple[int, int] | None = None
    part: str = ""
    series: str | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class SkippedPath:
    """A file, or several files of a folder, that are no CT scan.

    Args:
        path: The file or folder.
        reason: What it is, without the path.
        files: Number of files.
        is_series: Whether they are a DICOM series, such as one of another modality.
    """

    path: Path
    reason: str
    files: int = 1
    is_series: bool = False


@dataclass
class Discovery:
    """Scans that were found, and all other paths.

    Args:
        scans: The scans.
        skipped: The other paths.
    """

    scans: list[ScanSource] = field(default_factory=list)
    skipped: list[SkippedPath] = field(default_factory=list)
