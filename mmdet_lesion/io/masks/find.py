"""Discovery of masks in a folder."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom

from ..scans.dicom_series import is_dicom
from ..scans.folder import IMAGE_SUFFIXES

__all__ = ["MaskSource", "SkippedFile", "find_masks", "path_parts"]

_TAGS = [
    "Modality",
    "SOPClassUID",
    "ReferencedSeriesSequence",
    "ReferencedFrameOfReferenceSequence",
]
_KINDS = {"SEG": "seg", "RTSTRUCT": "rtstruct"}


@dataclass(frozen=True)
class MaskSource:
    """Location of a mask.

    Args:
        path: The file.
        kind: ``'image'`` (label map), ``'seg'`` (DICOM segmentation) or ``'rtstruct'``.
        series: Series Instance UIDs of the scan to which a DICOM mask refers.
    """

    path: Path
    kind: str
    series: tuple[str, ...] = ()


@dataclass(frozen=True)
class SkippedFile:
    """A file that is no mask.

    Args:
        path: The file.
        reason: What it is.
    """

    path: Path
    reason: str


def path_parts(path: Path, root: Path, is_file: bool = True) -> tuple[str, ...]:
    """Return folders and name of a scan or mask below a folder, without the suffix of a format.

    Args:
        path: The file, or the folder of a DICOM scan.
        root: The folder that was searched.
        is_file: Whether the path is a file.
    """
    parts = path.relative_to(root).parts or (root.resolve().name,)
    if not is_file:
        return parts
    suffixes = (*IMAGE_SUFFIXES, path.suffix)
    suffix = next(one for one in suffixes if path.name.lower().endswith(one.lower()))
    return (*parts[:-1], path.name[: len(path.name) - len(suffix)] or path.name)


def find_masks(files: Iterable[Path]) -> tuple[list[MaskSource], list[SkippedFile]]:
    """Find the masks among files, of which only names and DICOM headers are read.

    Args:
        files: The files.

    Returns:
        The masks and the other files, in the same order. Files of voxels that belong to another
        header (``.raw``) are in neither.
    """
    masks: list[MaskSource] = []
    skipped: list[SkippedFile] = []
    for path in files:
        if path.name.lower().endswith(IMAGE_SUFFIXES):
            # An Analyze image has two files, of which one names it.
            if path.suffix.lower() != ".img" or not path.with_suffix(".hdr").is_file():
                masks.append(MaskSource(path, "image"))
        elif path.suffix.lower() in (".raw", ".zraw"):
            continue
        elif is_dicom(path):
            found = _of_dicom(path)
            if isinstance(found, MaskSource):
                masks.append(found)
            else:
                skipped.append(found)
        else:
            skipped.append(SkippedFile(path, "neither an image nor a DICOM file"))
    return masks, skipped


def _of_dicom(path: Path) -> MaskSource | SkippedFile:
    try:
        data = pydicom.dcmread(path, specific_tags=_TAGS, stop_before_pixels=True)
        modality = str(data.get("Modality", ""))
        if modality not in _KINDS:
            return SkippedFile(path, f"a DICOM file of modality {modality or 'unknown'}, no mask")
        return MaskSource(path, _KINDS[modality], tuple(sorted(set(_referenced_series(data)))))
    except Exception as error:
        # Damaged files raise many kinds of exceptions in pydicom.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return SkippedFile(path, f"not a readable DICOM file ({reason})")


def _referenced_series(data: pydicom.Dataset) -> Iterable[str]:
    """Yield the series to which a segmentation or structure set refers."""
    for series in data.get("ReferencedSeriesSequence") or ():
        yield str(series.SeriesInstanceUID)
    for frame in data.get("ReferencedFrameOfReferenceSequence") or ():
        for study in frame.get("RTReferencedStudySequence") or ():
            for series in study.get("RTReferencedSeriesSequence") or ():
                yield str(series.SeriesInstanceUID)
