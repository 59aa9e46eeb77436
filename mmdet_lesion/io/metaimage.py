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

__all__ = ["MetaImageHeader", "read_metaimage", "read_metaimage_header", "write_metaimage"]

# Bytes a voxel of the element types that ITK reads.
_SIZES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
# A header is a page of text; a volume that is called .mhd by mistake is not read as one.
_LONGEST_HEADER = 64 * 1024
_IDENTITY = "1 0 0 0 1 0 0 0 1"


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


def _numbers(path: Path, fields: dict[str, str], keys: tuple[str, ...], length: int) -> list[float]:
    key = next((key for key in keys if key in fields), None)
    if key is None:
        raise InputError(f"{path} has no {keys[0]}; expected {length} numbers")
    try:
        values = [float(part) for part in fields[key].split()]
    except ValueError:
        values = []
    if len(values) != length or not all(map(math.isfinite, values)):
        raise InputError(f"{path} has {key} = {fields[key]}; expected {length} finite numbers")
    return values


def read_metaimage_header(path: str | os.PathLike) -> MetaImageHeader:
    """Read and check the header of a three-dimensional MetaImage.

    Args:
        path: The ``.mhd`` or ``.mha`` file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: It is no header of a usable image; the message names the key.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; expected a MetaImage")
    with open(path, "rb") as file:
        text = file.read(_LONGEST_HEADER).decode("latin-1")
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if not equals:
            break
        fields[key.strip()] = value.strip()
        # By definition the last key; voxels may follow.
        if key.strip() == "ElementDataFile":
            break
    if "ElementDataFile" not in fields:
        raise InputError(f"{path} has no ElementDataFile; expected the header of a MetaImage")
    if fields.get("NDims") != "3":
        raise InputError(f"{path} has NDims = {fields.get('NDims')}; expected 3")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise InputError(
            f"{path} has ElementNumberOfChannels = {fields['ElementNumberOfChannels']}; expected 1"
        )
    size = _numbers(path, fields, ("DimSize",), 3)
    if not all(n >= 1 and n.is_integer() for n in size):
        raise InputError(f"{path} has DimSize = {fields['DimSize']}; expected whole numbers from 1")
    spacing = _numbers(path, fields, ("ElementSpacing", "ElementSize"), 3)
    if min(spacing) <= 0:
        raise InputError(f"{path} has ElementSpacing = {spacing}; expected positive mm")
    fields.setdefault("Offset", fields.get("Position", fields.get("Origin", "0 0 0")))
    fields.setdefault(
        "TransformMatrix", fields.get("Rotation", fields.get("Orientation", _IDENTITY))
    )
    origin = _numbers(path, fields, ("Offset",), 3)
    matrix = np.array(_numbers(path, fields, ("TransformMatrix",), 9)).reshape(3, 3)
    if abs(np.linalg.det(matrix)) < 1e-6:
        raise InputError(
            f"{path} has TransformMatrix = {fields['TransformMatrix']}; expected directions of axes"
        )
    kind = fields.get("ElementType")
    if kind not in _SIZES:
        raise InputError(f"{path} has ElementType = {kind}; expected one of {', '.join(_SIZES)}")
    x, y, z = (int(n) for n in size)
    local = fields["ElementDataFile"].upper() == "LOCAL"
    data = None if local else path.parent / fields["ElementDataFile"]
    missing = 0
    if data is not None and fields.get("CompressedData", "False").lower() != "true":
        if not data.is_file():
            raise InputError(f"{path} names {data.name} as its data, which is not there")
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
        InputError: The header is of no use, or the data file is missing or too short.
    """
    header = read_metaimage_header(path)
    if header.missing:
        raise InputError(
            f"{header.data} is {header.missing} bytes shorter than {Path(path).name} says"
        )
    try:
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(path), imageIO="MetaImageIO"))
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise InputError(f"{path} cannot be read as a MetaImage: {reason}") from None
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
