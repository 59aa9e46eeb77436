"""Grouping of DICOM files by series, for which only the first elements of headers are read."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag

__all__ = ["DicomSeries", "group_by_series", "is_dicom"]

_TAGS: list[BaseTag | int] = [
    Tag(name)
    for name in ("ImageType", "Modality", "PatientID", "SeriesInstanceUID", "SeriesNumber")
]
_LAST_TAG = Tag("SeriesNumber")
# A deflated dataset is inflated as a whole, which a reader with limits should do.
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PREFIX_END = 132
_META_LENGTH = 1024


@dataclass(frozen=True)
class DicomSeries:
    """Files of a folder with the same patient and series.

    Args:
        uid: Series Instance UID, or ``''``.
        number: Series Number, or ``''``.
        modality: Modality, such as ``'CT'``, or ``''`` for files that do not state one.
        localizer: Whether all files are localizers (scouts).
        files: The files, sorted.
    """

    uid: str
    number: str
    modality: str
    localizer: bool
    files: tuple[Path, ...]

    @property
    def is_ct(self) -> bool:
        """Whether the series is a CT scan, as far as the headers say."""
        return self.modality == "CT" and not self.localizer


@dataclass(frozen=True)
class _Identity:
    patient: str
    uid: str
    number: str
    modality: str
    localizer: bool


def is_dicom(path: Path) -> bool:
    """Return whether a file has the prefix of DICOM files."""
    with open(path, "rb") as file:
        file.seek(_PREFIX_END - 4)
        return file.read(4) == b"DICM"


def group_by_series(files: Iterable[Path]) -> list[DicomSeries]:
    """Group DICOM files by patient and series.

    Files whose header does not name a series, because it is damaged or truncated, are added to the
    only CT series if there is one, so that reading it reports them; otherwise they are a group of
    their own.

    Args:
        files: DICOM files.

    Returns:
        The groups in the order of their series numbers.
    """
    groups: dict[tuple[str, str], list[tuple[Path, _Identity]]] = defaultdict(list)
    unknown: list[Path] = []
    for file in sorted(files):
        identity = _identify(file)
        if identity is None:
            unknown.append(file)
        else:
            groups[identity.patient, identity.uid].append((file, identity))
    series = [_series(uid, members) for (_, uid), members in groups.items()]
    scans = [index for index, one in enumerate(series) if one.is_ct]
    if unknown and len(scans) == 1:
        old = series[scans[0]]
        paths = tuple(sorted((*old.files, *unknown)))
        series[scans[0]] = DicomSeries(old.uid, old.number, old.modality, False, paths)
    elif unknown:
        series.append(DicomSeries("", "", "", False, tuple(unknown)))
    return sorted(series, key=lambda one: (len(one.number), one.number, one.uid, one.files))


def _series(uid: str, members: list[tuple[Path, _Identity]]) -> DicomSeries:
    identities = [identity for _, identity in members]
    # Presentation states and reports may have the UID of their series.
    modalities = [identity.modality for identity in identities]
    modality = "CT" if "CT" in modalities else modalities[0]
    localizer = all(identity.localizer for identity in identities)
    files = tuple(file for file, _ in members)
    return DicomSeries(uid, identities[0].number, modality, localizer, files)


def _identify(path: Path) -> _Identity | None:
    """Read what tells series apart, or return None if the header does not state it."""
    try:
        with open(path, "rb") as file, warnings.catch_warnings():
            # The same warnings are collected when the slices are read.
            warnings.simplefilter("ignore")
            if _DEFLATED in file.read(_META_LENGTH):
                return None
            file.seek(0)
            data = read_partial(
                file, stop_when=lambda tag, vr, length: tag > _LAST_TAG, specific_tags=_TAGS
            )
            modality = str(data.get("Modality") or "")
            if not modality:
                return None
            kinds = data.get("ImageType") or ()
            return _Identity(
                str(data.get("PatientID") or ""),
                str(data.get("SeriesInstanceUID") or ""),
                str(data.get("SeriesNumber") or ""),
                modality,
                "LOCALIZER" in ([kinds] if isinstance(kinds, str) else kinds),
            )
    except Exception:
        # Damaged files raise many kinds of exceptions in pydicom.
        return None
