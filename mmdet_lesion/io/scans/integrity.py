"""Checks of image files that SimpleITK reads without noticing damage."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..metaimage import is_beside

__all__ = [
    "MAX_INTERCEPT",
    "MAX_SLOPE",
    "check_geometry",
    "check_nrrd",
    "check_size",
    "check_spacing",
]

#: Smallest and largest spacing in mm that a CT may have.
SPACING_RANGE = (0.05, 50.0)
#: Largest magnitudes of a rescale slope and intercept that give Hounsfield units.
MAX_SLOPE, MAX_INTERCEPT = 1000.0, 1e5
#: Largest number of voxels of a scan, such as 4,000 slices of 1024 x 1024.
MAX_VOXELS = 4_200_000_000
# Largest deviation of direction vectors from unit length and right angles.
_SHEAR = 0.02
_SIZES = {
    **dict.fromkeys(("signed char", "int8", "int8_t", "uchar", "unsigned char", "uint8"), 1),
    **dict.fromkeys(("uint8_t",), 1),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16"), 2),
    **dict.fromkeys(("int16_t", "ushort", "unsigned short", "unsigned short int", "uint16"), 2),
    **dict.fromkeys(("uint16_t",), 2),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t", "uint", "unsigned int"), 4),
    **dict.fromkeys(("uint32", "uint32_t", "float"), 4),
    **dict.fromkeys(("longlong", "long long", "long long int", "signed long long", "int64"), 8),
    **dict.fromkeys(("int64_t", "ulonglong", "unsigned long long", "uint64", "uint64_t"), 8),
    **dict.fromkeys(("double",), 8),
}
_MAX_HEADER = 1 << 20


def check_size(path: Path, size: Sequence[int]) -> None:
    """Check that a scan has no more voxels than a CT, before a small file is decompressed.

    Raises:
        InputError: There are more than ``MAX_VOXELS``.
    """
    if math.prod(size) > MAX_VOXELS:
        raise InputError(
            f"{path} has {' x '.join(map(str, size))} voxels; expected at most {MAX_VOXELS}"
        )


def check_spacing(path: Path, spacing: tuple[float, ...]) -> None:
    """Check that a spacing is that of a CT.

    Raises:
        InputError: A value is not finite or not within ``SPACING_RANGE``.
    """
    low, high = SPACING_RANGE
    if not all(low <= value <= high for value in spacing):
        found = " x ".join(f"{value:g}" for value in spacing)
        raise InputError(f"{path} has the spacing {found} mm; expected {low:g} to {high:g} mm")


def check_geometry(path: Path, spacing: tuple[float, ...], direction: tuple[float, ...]) -> None:
    """Check that spacing and direction are those of a CT.

    Args:
        path: The file, for messages.
        spacing: Spacing ``(x, y, z)`` in mm.
        direction: 3×3 matrix in row-major order.

    Raises:
        InputError: The spacing is out of range, or the axes are not orthonormal.
    """
    check_spacing(path, spacing)
    matrix = np.reshape(direction, (3, 3))
    if not np.allclose(matrix.T @ matrix, np.eye(3), atol=_SHEAR):
        raise InputError(
            f"{path} has the direction {np.round(direction, 4).tolist()}; expected unit vectors at "
            "right angles"
        )


def check_nrrd(path: Path) -> list[str]:
    """Check that a NRRD has a spacing and all of its voxels, and their checksum if it has one.

    Args:
        path: The ``.nrrd`` or ``.nhdr`` file.

    Returns:
        Warnings.

    Raises:
        InputError: The header is incomplete, or the data are damaged, do not have the size that
            the header gives, or are in another folder.
    """
    with open(path, "rb") as file:
        content = file.read(_MAX_HEADER)
    head, blank, _ = content.replace(b"\r\n", b"\n").partition(b"\n\n")
    newline = b"\r\n\r\n" if b"\r\n\r\n" in content else b"\n\n"
    start = content.find(newline) + len(newline)
    fields: dict[str, str] = {}
    for line in head.decode("latin-1").split("\n")[1:]:
        key, colon, value = line.partition(":")
        if colon and not line.startswith("#") and not value.startswith("="):
            fields[key.strip().lower()] = value.strip()
    if "spacings" not in fields and "space directions" not in fields:
        raise InputError(
            f"{path} has no spacing; expected 'spacings' or 'space directions' in its header"
        )
    if "none" in fields.get("space directions", "").lower():
        raise InputError(
            f"{path} has 'space directions: {fields['space directions']}'; expected three vectors"
        )
    try:
        sizes = [int(part) for part in fields["sizes"].split()]
        size = math.prod(sizes)
        size *= _SIZES[fields["type"].lower()]
        encoding = fields["encoding"].lower()
    except (KeyError, ValueError) as error:
        raise InputError(
            f"{path} has an invalid header: {error}; expected that of a NRRD"
        ) from None
    check_size(path, sizes)
    name = fields.get("data file", fields.get("datafile"))
    if name is None and not blank:
        raise InputError(f"{path} has no voxels after its header; expected {size} bytes")
    if name is not None and not is_beside(name):
        raise InputError(
            f"{path}: the data file is {name}; expected a file in the folder of the header"
        )
    source, offset = (path, start) if name is None else (path.parent / name, 0)
    if not source.is_file():
        raise InputError(f"{path}: the data file {name} does not exist; expected it in its folder")
    if encoding == "raw":
        found = source.stat().st_size - offset
        # With a skip, something other than voxels comes first.
        skips = any(fields.get(f"{unit} skip", "0") != "0" for unit in ("byte", "line"))
        if found < size or (found > size and not skips):
            raise InputError(f"{path} has {found} bytes of voxels; expected {size}")
    elif encoding in ("gzip", "gz"):
        found = _gzip_size(path, source, offset)
        if found != size:
            raise InputError(f"{path} has {found} bytes of voxels; expected {size}")
    if "space origin" not in fields:
        return ["the header has no space origin; positions in mm are relative to the first voxel"]
    return []


def _gzip_size(path: Path, source: Path, offset: int) -> int:
    """Return the uncompressed size of a gzip stream after verifying its checksum."""
    size = 0
    try:
        with open(source, "rb") as file:
            file.seek(offset)
            with gzip.GzipFile(fileobj=file) as stream:
                while block := stream.read(1 << 20):
                    size += len(block)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} has damaged voxels ({error}); expected a complete gzip stream"
        ) from None
    return size
