"""Texts of the HTML report about the patient, the study and the slices."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...io.scans import Scan

__all__ = ["identity", "slice_labels"]

_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})")
_SEX = {"F": "female", "M": "male", "O": "other"}


def identity(header: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return rows about patient, study and series.

    Args:
        header: DICOM elements by keyword.

    Returns:
        Titles and texts; empty without a header.
    """
    name = header.get("PatientName", "").replace("^", " ").replace("=", " ").split()
    rows: dict[str, list[str | None]] = {
        "Patient": [
            " ".join(name),
            _after("ID ", header.get("PatientID")),
            _SEX.get(header.get("PatientSex", ""), ""),
            _after("born ", _date(header.get("PatientBirthDate"))),
            _after("age ", header.get("PatientAge")),
        ],
        "Study": [
            _date(header.get("StudyDate")),
            _time(header.get("StudyTime")),
            header.get("StudyDescription"),
            _after("accession ", header.get("AccessionNumber")),
        ],
        "Series": [
            _after("number ", header.get("SeriesNumber")),
            header.get("SeriesDescription"),
            header.get("BodyPartExamined"),
            _after("slice thickness ", header.get("SliceThickness"), " mm"),
            _after("kernel ", header.get("ConvolutionKernel")),
            _after("contrast agent ", header.get("ContrastBolusAgent")),
        ],
    }
    texts = {title: " · ".join(filter(None, parts)) for title, parts in rows.items()}
    return [(title, text) for title, text in texts.items() if text]


def _after(word: str, text: str | None, unit: str = "") -> str:
    return f"{word}{text}{unit}" if text else ""


def _date(text: str | None) -> str:
    match = _DATE.fullmatch(text or "")
    return "-".join(match.groups()) if match else text or ""


def _time(text: str | None) -> str:
    return f"{text[:2]}:{text[2:4]}" if text and text[:4].isdigit() and len(text) >= 4 else ""


def slice_labels(scan: Scan, axis: int) -> list[str]:
    """Return how an archive names each slice.

    Args:
        scan: The scan.
        axis: Axis of ``(D, H, W)`` along which axial slices are stacked.

    Returns:
        The instance number, the file, or ``''`` if slices are not files.
    """
    files = scan.slice_files if axis == 0 else ()
    numbers = scan.instances if axis == 0 else ()
    if not files and not any(numbers):
        return [""] * scan.volume.shape[axis]
    labels = []
    for z in range(scan.volume.shape[axis]):
        number = numbers[z] if numbers else None
        file = files[z] if files else None
        if number is not None:
            labels.append(f"InstanceNumber {number}")
        elif file is not None:
            labels.append(file.name)
        else:
            # An anonymized scan has no files.
            labels.append("interpolated" if files else "")
    return labels
