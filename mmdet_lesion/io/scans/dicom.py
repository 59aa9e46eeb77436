"""Reading of DICOM series on a regular grid."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ...errors import InputError
from ...structures import Volume
from .dicom_grid import SliceStack
from .dicom_header import SliceHeader, read_header, read_identity
from .dicom_series import is_dicom
from .folder import list_files_below
from .integrity import check_geometry, check_spacing
from .scan import Scan, to_hu

__all__ = ["read_dicom"]

# More threads than this wait for the disk.
_THREADS = 4


def read_dicom(path: Path, files: Sequence[Path] = (), series: str | None = None) -> Scan:
    """Read a series.

    Slices are sorted by position along the normal. Of several series, the one with the most slices
    is read; of slices at the same position, the one with the lowest acquisition and instance
    number. Missing slices and mixed spacings are interpolated linearly to a regular grid. A tilt
    of the gantry is kept in the direction matrix, whose z axis is then not perpendicular to the
    others. All of this causes warnings.

    Args:
        path: The folder, which is read with its subfolders if ``files`` is empty.
        files: The files.
        series: Series Instance UID.

    Returns:
        The scan; ``slice_files`` is None for interpolated slices.

    Raises:
        InputError: No CT series or not the requested one is found, a gap exceeds 30 mm, or a slice
            cannot be decoded.
    """
    headers = _read_headers(path, files)
    chosen, warnings = _choose_series(path, headers, series)
    for header in chosen:
        normal = header.normal
        axes = np.column_stack((header.orientation[:3], header.orientation[3:], normal))
        check_geometry(header.path, (*header.spacing, 1.0), tuple(axes.ravel()))
    chosen, found = _one_stack(chosen)
    warnings += found
    if any(header.slope is None for header in chosen):
        warnings.append("slices have no rescale slope and intercept; their values are used as HU")
    padded = [header for header in chosen if header.padding]
    if padded:
        warnings.append(
            f"{len(padded)} slices have up to {max(header.padding for header in padded)} bytes "
            f"after their pixels, first {padded[0].path.name}; they are ignored"
        )
    stack = SliceStack.of(chosen)
    rescalings = {(header.slope, header.intercept) for header in chosen}
    if len(rescalings) > 1:
        warnings.append(
            f"slices have {len(rescalings)} different rescale slopes and intercepts; the values of "
            "each are converted by its own"
        )
    array = _read_pixels(stack)
    check_spacing(path, stack.spacing)
    volume = Volume(array, stack.spacing, stack.origin, stack.direction)
    return Scan(
        volume,
        path,
        "dicom",
        series_uid=chosen[0].series_uid,
        slice_files=stack.files,
        instances=stack.instances,
        header=read_identity(chosen[0].path),
        warnings=warnings + stack.warnings,
    )


def _read_headers(path: Path, files: Sequence[Path]) -> list[SliceHeader]:
    if not files:
        files = list_files_below(path)
    if not files:
        raise InputError(f"{path} is an empty folder; expected the slices of a CT")
    dicom = [file for file in files if os.path.getsize(file) > 132 and is_dicom(file)]
    if not dicom:
        raise InputError(
            f"{path} contains {len(files)} files, such as {files[0].name}, but no DICOM file; "
            "expected the slices of a CT"
        )
    headers = [header for header in map(read_header, dicom) if header is not None]
    if not headers:
        raise InputError(
            f"{path} contains {len(dicom)} DICOM files, but no image with a position and a "
            "pixel spacing; expected the slices of a CT"
        )
    return headers


def _choose_series(
    path: Path, headers: list[SliceHeader], series: str | None
) -> tuple[list[SliceHeader], list[str]]:
    """Choose the slices of one series, and return warnings."""
    by_uid: dict[str, list[SliceHeader]] = {}
    for header in headers:
        by_uid.setdefault(header.series_uid, []).append(header)
    # CT first, then by number of slices; the UID makes the order of ties reproducible.
    order = sorted(
        by_uid, key=lambda uid: (by_uid[uid][0].modality != "CT", -len(by_uid[uid]), uid)
    )
    listed = "; ".join(by_uid[uid][0].describe(len(by_uid[uid])) for uid in order)
    if series is not None and series not in by_uid:
        raise InputError(f"{path} has no series {series}; expected one of {listed}")
    uid = order[0] if series is None else series
    chosen = by_uid[uid]
    first = chosen[0]
    if first.modality != "CT":
        raise InputError(f"{path} has the modality {first.modality} ({listed}); expected CT")
    if first.frames > 1:
        raise InputError(
            f"{first.path} contains {first.frames} frames (enhanced CT); expected one slice per "
            "file, as written by dcm4che's emf2sf or Slicer"
        )
    if first.samples != 1:
        raise InputError(f"{first.path} has {first.samples} samples per pixel; expected one, HU")
    warnings = []
    if len(order) > 1 and series is None:
        warnings.append(
            f"the folder contains {len(order)} series ({listed}); the first one is read; select "
            "another one by --series"
        )
    return chosen, warnings


def _one_stack(headers: list[SliceHeader]) -> tuple[list[SliceHeader], list[str]]:
    """Choose slices of one size and orientation with unique, sorted positions."""
    warnings = []
    groups: dict[tuple, list[SliceHeader]] = {}
    for header in headers:
        groups.setdefault(header.plane, []).append(header)
    chosen = max(groups.values(), key=len)
    others = len(headers) - len(chosen)
    if others:
        warnings.append(
            f"{others} slices of another size or orientation, such as a localizer, are ignored"
        )
    chosen = sorted(chosen, key=lambda h: (h.position, h.acquisition, h.instance, str(h.path)))
    kept = [chosen[0]]
    duplicates = []
    for header in chosen[1:]:
        if header.position - kept[-1].position < 0.01:
            duplicates.append(header)
        else:
            kept.append(header)
    if duplicates:
        first = duplicates[0]
        acquisitions = len({header.acquisition for header in chosen})
        reason = f" (the series has {acquisitions} acquisitions)" if acquisitions > 1 else ""
        warnings.append(
            f"{len(duplicates)} slices have the position of another one{reason}, first "
            f"{first.path.name} at {first.position:.1f} mm; of each position, the slice with the "
            "lowest acquisition and instance number is used"
        )
    return kept, warnings


def _read_pixels(stack: SliceStack) -> np.ndarray:
    """Read the int16 HU of the regular grid; a few decoded slices are in memory at a time."""
    rows, columns = stack.headers[0].rows, stack.headers[0].columns
    array = np.empty((len(stack.files), rows, columns), dtype=np.int16)
    planes = _decode_ahead(stack.headers)
    below = above = next(planes)
    at = 0
    for z, (lower, weight) in enumerate(zip(stack.lower, stack.weight, strict=True)):
        while at < lower + (weight > 0):
            at += 1
            below, above = above, next(planes)
        # ``above`` is slice ``at``, ``below`` the one before it.
        plane = above if lower == at else below
        if weight > 0:
            array[z] = np.rint(plane + weight * (above.astype(np.float32) - plane))
        else:
            array[z] = plane
    return array


def _decode_ahead(headers: Sequence[SliceHeader]) -> Iterator[np.ndarray]:
    """Decode slices in order, some of them ahead; GDCM runs without Python's lock."""
    threads = min(_THREADS, os.cpu_count() or 1)
    waiting = iter(headers)
    with ThreadPoolExecutor(threads) as pool:
        running = deque(pool.submit(_decode, header) for header in islice(waiting, 2 * threads))
        while running:
            plane = running.popleft().result()
            running.extend(pool.submit(_decode, header) for header in islice(waiting, 1))
            yield plane


def _decode(header: SliceHeader) -> np.ndarray:
    """Decode a slice to int16 HU by GDCM, which supports JPEG, JPEG-LS, JPEG 2000 and RLE."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    try:
        plane = sitk.GetArrayFromImage(reader.Execute()).reshape(header.rows, header.columns)
    except (RuntimeError, ValueError):
        raise InputError(
            f"{header.path} cannot be decoded; expected a complete file with a transfer syntax "
            f"that GDCM supports (found {header.transfer_syntax})"
        ) from None
    return to_hu(plane, str(header.path))[0]
