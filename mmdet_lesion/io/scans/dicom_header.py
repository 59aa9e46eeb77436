"""Headers of DICOM slices."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.multival import MultiValue

from ...errors import InputError
from ...structures.triples import triple
from .integrity import MAX_INTERCEPT, MAX_SLOPE

__all__ = ["SliceHeader", "read_header", "read_identity"]

_TAGS = [
    "SeriesInstanceUID", "SeriesDescription", "Modality", "InstanceNumber", "AcquisitionNumber",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "Rows",
    "Columns", "SamplesPerPixel", "NumberOfFrames", "RescaleSlope", "RescaleIntercept",
    "GantryDetectorTilt", "BitsAllocated", "PixelData",
]  # fmt: skip
_IDENTITY_TAGS = [
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyDate",
    "StudyTime", "StudyDescription", "AccessionNumber", "SeriesNumber", "SeriesDescription",
    "BodyPartExamined", "SliceThickness", "ConvolutionKernel", "ContrastBolusAgent",
]  # fmt: skip
_MAX_TEXT = 200

# Bytes above which an element is not read with the header.
_DEFER = 4096


@dataclass(frozen=True)
class SliceHeader:
    """Header of a DICOM slice.

    Args:
        path: The file.
        series_uid: Series Instance UID.
        description: Series Description; may be empty.
        modality: Modality, such as ``'CT'``.
        instance: Instance number, or 0 if it is missing.
        acquisition: Acquisition number, or 0 if it is missing.
        origin: World position ``(x, y, z)`` of the center of the first pixel in mm.
        orientation: Six cosines: directions of a row and of a column.
        spacing: Pixel spacing ``(x, y)`` in mm.
        thickness: Slice thickness in mm, or 0 if it is missing.
        rows: Number of rows.
        columns: Number of columns.
        samples: Samples per pixel.
        frames: Number of frames in the file.
        slope: Rescale slope, or None.
        intercept: Rescale intercept, or None.
        tilt: Gantry tilt of the header in degrees.
        transfer_syntax: Name of the pixel encoding.
        padding: Number of bytes that follow the pixels.
    """

    path: Path
    series_uid: str
    description: str
    modality: str
    instance: int
    acquisition: int
    origin: tuple[float, float, float]
    orientation: tuple[float, ...]
    spacing: tuple[float, float]
    thickness: float
    rows: int
    columns: int
    samples: int
    frames: int
    slope: float | None
    intercept: float | None
    tilt: float
    transfer_syntax: str
    padding: int = 0

    @property
    def normal(self) -> np.ndarray:
        """Direction perpendicular to the slice, shape (3,)."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def position(self) -> float:
        """Position along the normal in mm."""
        return float(np.dot(self.normal, self.origin))

    @property
    def plane(self) -> tuple:
        """Size, spacing and orientation, which are equal for the slices of a volume."""
        rounded = np.round(self.orientation, 3) + 0.0
        return (self.rows, self.columns, *np.round(self.spacing, 4), *rounded)

    def describe(self, slices: int) -> str:
        """Return a short description of the series, given its number of slices."""
        label = f" “{self.description}”" if self.description else ""
        return f"{self.series_uid}{label} {self.modality}, {slices} slices"


def read_header(path: Path) -> SliceHeader | None:
    """Read a header.

    Args:
        path: A DICOM file.

    Returns:
        The header, or None if the file is not an image (a report, a directory) or is a CT slice
        without a position.

    Raises:
        InputError: The header is damaged.
    """
    try:
        # Pixels are skipped, but their length is read.
        data = pydicom.dcmread(path, defer_size=_DEFER, specific_tags=_TAGS)
        if not data.get("Rows") or not data.get("Columns"):
            return None
        frames = int(data.get("NumberOfFrames") or 1)
        padding = 0
        if data.get("Modality") == "CT" and frames == 1:
            for tag, count in (
                ("ImagePositionPatient", 3),
                ("ImageOrientationPatient", 6),
                ("PixelSpacing", 2),
            ):
                found = data.get(tag)
                if found is None or found == "":
                    # Localizers and reformatted images of a series may lack a position.
                    return None
                if np.size(found) != count:
                    raise ValueError(f"{tag} has {np.size(found)} values; expected {count}")
            padding = _check_pixels(path, data)
            _check_rescale(data)
        # Defaults are used only for images that are rejected later.
        origin = _floats(data.get("ImagePositionPatient"))
        orientation = _floats(data.get("ImageOrientationPatient")) or (1.0, 0, 0, 0, 1.0, 0)
        spacing = _floats(data.get("PixelSpacing"))
        # In DICOM, the distance between rows comes first.
        y, x = spacing if len(spacing) == 2 else (1.0, 1.0)
        return SliceHeader(
            path=path,
            series_uid=str(data.get("SeriesInstanceUID", "")),
            description=str(data.get("SeriesDescription") or ""),
            modality=str(data.get("Modality", "an unknown modality")),
            instance=int(data.get("InstanceNumber") or 0),
            acquisition=int(data.get("AcquisitionNumber") or 0),
            origin=triple(origin) if len(origin) == 3 else (0.0, 0.0, 0.0),
            orientation=orientation,
            spacing=(x, y),
            thickness=float(data.get("SliceThickness") or 0),
            rows=int(data.Rows),
            columns=int(data.Columns),
            samples=int(data.get("SamplesPerPixel") or 1),
            frames=frames,
            slope=_number(data.get("RescaleSlope")),
            intercept=_number(data.get("RescaleIntercept")),
            tilt=float(data.get("GantryDetectorTilt") or 0),
            transfer_syntax=str(data.file_meta.TransferSyntaxUID.name),
            padding=padding,
        )
    except Exception as error:
        # Damaged files raise many kinds of exceptions in pydicom.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} is not a valid DICOM slice: {reason}") from None


def read_identity(path: Path) -> dict[str, str]:
    """Read the elements that identify the patient, the study and the series.

    Args:
        path: A DICOM file whose header was read before.

    Returns:
        Printable texts by keyword, without missing, empty and unreadable elements.
    """
    data = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_IDENTITY_TAGS)
    texts = {}
    for keyword in _IDENTITY_TAGS:
        try:
            with warnings.catch_warnings():
                # Odd texts are shown as they are.
                warnings.simplefilter("ignore")
                value = data.get(keyword)
            parts = value if isinstance(value, MultiValue) else [value]
            text = ", ".join(str(part) for part in parts if part is not None)
        except Exception:
            # Damaged elements raise many kinds of exceptions; the scan is readable without them.
            continue
        text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if text:
            texts[keyword] = text[:_MAX_TEXT]
    return texts


def _floats(values) -> tuple[float, ...]:
    numbers = tuple(float(value) for value in values or ())
    if not all(map(math.isfinite, numbers)):
        raise ValueError(f"{list(numbers)} is not finite; expected finite numbers")
    return numbers


def _number(value: object) -> float | None:
    return None if value is None or value == "" else float(str(value))


def _check_pixels(path: Path, data: pydicom.Dataset) -> int:
    """Check that uncompressed pixels have the size that the header gives.

    Returns:
        Number of bytes that follow the pixels, less than a row.
    """
    if "PixelData" not in data:
        raise ValueError("it has no pixels")
    element = data.get_item("PixelData")
    length = element.length if isinstance(element, RawDataElement) else len(element.value)
    samples = int(data.get("SamplesPerPixel") or 1)
    if data.file_meta.TransferSyntaxUID.is_compressed or samples != 1:
        return 0
    if isinstance(element, RawDataElement) and element.value is None:
        length = min(length, path.stat().st_size - element.value_tell)
    row = data.Columns * (int(data.get("BitsAllocated") or 16) // 8)
    size = data.Rows * row
    # Pixels of odd length are padded by a byte.
    expected = size + size % 2
    # Some archives pad slices further. A whole row more means that the header is wrong.
    if not expected <= length < max(expected + 1, size + row):
        raise ValueError(
            f"it has {length} bytes of pixels; expected {size} for {data.Rows} x {data.Columns} "
            f"pixels of {data.get('BitsAllocated')} bits"
        )
    return length - expected


def _check_rescale(data: pydicom.Dataset) -> None:
    for tag in ("RescaleSlope", "RescaleIntercept"):
        text = data.get(tag)
        value = _number(text)
        if value is None:
            continue
        limit = MAX_SLOPE if tag == "RescaleSlope" else MAX_INTERCEPT
        if not abs(value) <= limit or (tag == "RescaleSlope" and value <= 0):
            raise ValueError(f"{tag} is {text}; expected a value that gives Hounsfield units")
