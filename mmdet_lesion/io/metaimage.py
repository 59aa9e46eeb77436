"""MetaImage files (``.mhd`` beside ``.raw``): headers that are checked before voxels are read."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813

from ..errors import InputError
from ..structures.volume import Volume
from .atomic import atomic_write

__all__ = [
    "MetaImageError",
    "MetaImageHeader",
    "read_metaimage",
    "read_metaimage_header",
    "write_metaimage",
]

# Bytes a voxel of the element types that ITK reads.
_SIZES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
# A header is a page of text; a volume that is called .mhd by mistake is not read as one.
_LONGEST_HEADER = 64 * 1024


class MetaImageError(InputError):
    """A MetaImage is of no use.

    Args:
        path: The file.
        line: Line of the header, from 1, or None for the whole file.
        reason: What was found and what was expected.
        kind: A short name to count by.
    """

    def __init__(
        self, path: str | os.PathLike, line: int | None, reason: str, kind: str = "bad header"
    ) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}")
        self.line, self.reason, self.kind = line, reason, kind


@dataclass(frozen=True)
class MetaImageHeader:
    """What a header says, checked.

    Args:
        shape: ``(D, H, W)``.
        spacing: ``(x, y, z)`` in mm.
        origin: World position ``(x, y, z)`` in mm of the centre of voxel 0, 0, 0.
        direction: 3×3 matrix, row by row; its columns are the directions of x, y and z.
        data: The file with the voxels, None where they follow the header.
        missing: Bytes that the data file lacks.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    data: Path | None
    missing: int


class _Fields:
    """Keys of a header with their lines."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            text = file.read(_LONGEST_HEADER).decode("latin-1")
        self._values: dict[str, str] = {}
        self._lines: dict[str, int] = {}
        for number, line in enumerate(text.splitlines(), start=1):
            key, equals, value = (part.strip() for part in line.partition("="))
            if not equals:
                break
            self._values[key], self._lines[key] = value, number
            # By definition the last key; voxels may follow.
            if key == "ElementDataFile":
                break

    def wrong(self, key: str, expected: str) -> MetaImageError:
        """The error that a key is not as expected."""
        if key not in self._values:
            return MetaImageError(self.path, None, f"no {key}; expected {expected}")
        found = f"{key} = {self._values[key]}; expected {expected}"
        return MetaImageError(self.path, self._lines[key], found)

    def text(self, key: str, default: str = "") -> str:
        return self._values.get(key, default)

    def numbers(self, keys: tuple[str, ...], length: int, default: str = "") -> list[float]:
        """The numbers of the first key that is there: MetaImage has several names for some."""
        key = next((key for key in keys if key in self._values), keys[0])
        try:
            values = [float(part) for part in self.text(key, default).split()]
        except ValueError:
            values = []
        if len(values) != length or not all(map(math.isfinite, values)):
            raise self.wrong(key, f"{length} finite numbers")
        return values


def read_metaimage_header(path: str | os.PathLike) -> MetaImageHeader:
    """Read and check the header of a three-dimensional MetaImage.

    Args:
        path: The ``.mhd`` or ``.mha`` file.

    Raises:
        FileNotFoundError: There is no such file.
        MetaImageError: It is no header of a usable image; the message names the line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a MetaImage")
    fields = _Fields(path)
    if not fields.text("ElementDataFile"):
        raise fields.wrong("ElementDataFile", "the header of a MetaImage")
    if fields.text("NDims") != "3":
        raise fields.wrong("NDims", "3")
    if fields.text("ElementNumberOfChannels", "1") != "1":
        raise fields.wrong("ElementNumberOfChannels", "1")
    size = fields.numbers(("DimSize",), 3)
    if not all(n >= 1 and n.is_integer() for n in size):
        raise fields.wrong("DimSize", "whole numbers from 1")
    spacing = fields.numbers(("ElementSpacing", "ElementSize"), 3)
    if min(spacing) <= 0:
        raise fields.wrong("ElementSpacing", "positive mm")
    origin = fields.numbers(("Offset", "Position", "Origin"), 3, "0 0 0")
    keys = ("TransformMatrix", "Rotation", "Orientation")
    matrix = np.array(fields.numbers(keys, 9, "1 0 0 0 1 0 0 0 1")).reshape(3, 3)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise fields.wrong("TransformMatrix", "directions of three axes")
    kind = fields.text("ElementType")
    if kind not in _SIZES:
        raise fields.wrong("ElementType", f"one of {', '.join(_SIZES)}")
    x, y, z = (int(n) for n in size)
    name = fields.text("ElementDataFile")
    data = None if name.upper() == "LOCAL" else path.parent / name
    missing = 0
    if data is not None and fields.text("CompressedData", "False").lower() != "true":
        if not data.is_file():
            raise MetaImageError(path, None, f"its data {name} is not there", "missing data")
        missing = max(0, x * y * z * _SIZES[kind] - data.stat().st_size)
    return MetaImageHeader(
        (z, y, x),
        tuple(spacing),
        tuple(origin),
        # The file lists the direction of x, then of y, then of z: the columns.
        tuple(matrix.T.ravel().tolist()),
        data,
        missing,
    )


def read_metaimage(path: str | os.PathLike) -> Volume:
    """Read a three-dimensional MetaImage.

    Raises:
        FileNotFoundError: There is no such file.
        MetaImageError: The header is of no use, or the data file is missing or too short.
    """
    header = read_metaimage_header(path)
    if header.missing:
        reason = f"its data {header.data.name} is {header.missing} bytes shorter than it says"
        raise MetaImageError(path, None, reason, "short data")
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="MetaImageIO"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise MetaImageError(path, None, f"cannot be read: {reason}", "broken data") from None
    return Volume(array, header.spacing, header.origin, header.direction)


def write_metaimage(path: str | os.PathLike, volume: Volume) -> None:
    """Write ``.mhd`` and ``.raw`` atomically, the header last, as LUNA16 has them.

    Args:
        path: The ``.mhd`` file.
        volume: Voxels of dtype int16.

    Raises:
        InputError: The voxels are not int16.
    """
    path = Path(path)
    if volume.array.dtype != np.int16:
        raise InputError(f"{path}: the voxels are {volume.array.dtype}; expected int16")
    raw = path.with_suffix(".raw")
    with atomic_write(raw) as temporary:
        temporary.write_bytes(np.ascontiguousarray(volume.array, dtype="<i2").tobytes())
    matrix = np.array(volume.direction).reshape(3, 3).T.ravel()

    def line(key: str, values) -> str:
        return f"{key} = {' '.join(f'{float(v):.17g}' for v in values)}\n"

    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        "CompressedData = False\n"
        + line("TransformMatrix", matrix)
        + line("Offset", volume.origin)
        + "CenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
        + line("ElementSpacing", volume.spacing)
        + line("DimSize", volume.shape[::-1])
        + f"ElementType = MET_SHORT\nElementDataFile = {raw.name}\n"
    )
    with atomic_write(path) as temporary:
        temporary.write_text(header, encoding="ascii")
