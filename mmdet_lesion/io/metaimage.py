"""Reading and writing of MetaImage files (``.mhd`` with ``.raw``, or ``.mha``) by SimpleITK.

SimpleITK accepts invalid headers and data (an empty axis, a negative spacing, a truncated
compressed stream); :func:`check_metaimage` rejects them first.
"""

from __future__ import annotations

import math
import os
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..structures.volume import Volume
from .atomic import name_full_disk

__all__ = [
    "MetaImageError",
    "check_metaimage",
    "is_beside",
    "metaimage_data_file",
    "read_metaimage",
    "write_metaimage",
]

# Bytes per voxel.
_TYPES = {
    "MET_CHAR": 1, "MET_UCHAR": 1, "MET_SHORT": 2, "MET_USHORT": 2, "MET_INT": 4, "MET_UINT": 4,
    "MET_LONG": 4, "MET_ULONG": 4, "MET_LONG_LONG": 8, "MET_ULONG_LONG": 8, "MET_FLOAT": 4,
    "MET_DOUBLE": 8,
}  # fmt: skip
# Limits reading of a file that is not a header, such as a volume named .mhd by mistake.
_MAX_HEADER = 64 * 1024


def _is_matrix(values: list[float]) -> bool:
    axes = math.isqrt(len(values))
    return abs(np.linalg.det(np.reshape(values, (axes, axes)))) >= 1e-6


# Names of a key, whether it is optional, its condition, and the expected content for messages.
_NUMBERS: list[tuple[tuple[str, ...], bool, Callable[[list[float]], bool], str]] = [
    (("DimSize",), False, lambda v: all(n >= 1 and n.is_integer() for n in v), "whole numbers > 0"),
    (("ElementSpacing", "ElementSize"), False, lambda v: min(v) > 0, "positive numbers (mm)"),
    (("Offset", "Position", "Origin"), True, lambda v: True, "finite numbers"),
    (("TransformMatrix", "Rotation", "Orientation"), True, _is_matrix, "directions of the axes"),
]


class MetaImageError(InputError):
    """Raised for an invalid MetaImage.

    Args:
        path: The file.
        line: Line of the header, from 1, or None for the whole file.
        reason: Found and expected content.
        kind: Short name, by which errors are counted.
    """

    def __init__(
        self, path: str | os.PathLike, line: int | None, reason: str, kind: str = "bad header"
    ) -> None:
        where = str(path) if line is None else f"{path}, line {line}"
        super().__init__(f"{where}: {reason}")
        self.line, self.reason, self.kind = line, reason, kind


def metaimage_data_file(path: str | os.PathLike) -> Path | None:
    """Return the file of the voxels, or None if they follow the header or the name is missing."""
    name = _read_header(Path(path))[0].get("ElementDataFile", "")
    return None if name.upper() in ("", "LOCAL") else Path(path).parent / name


def is_beside(name: str) -> bool:
    """Return whether a data file that a header names is in its folder or below it."""
    return not Path(name).is_absolute() and ".." not in Path(name).parts


def check_metaimage(path: str | os.PathLike) -> None:
    """Check the header of a MetaImage and the completeness of its data.

    Args:
        path: The ``.mhd`` or ``.mha`` file.

    Raises:
        FileNotFoundError: The file does not exist.
        MetaImageError: The image is invalid; the message names the line of the header.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a MetaImage")
    fields, lines, end = _read_header(path)

    def wrong(key: str, expected: str) -> MetaImageError:
        if key not in fields:
            return MetaImageError(path, None, f"{key} is missing; expected {expected}")
        found = f"{key} = {fields[key][:80]}"
        return MetaImageError(path, lines[key], f"{found}; expected {expected}")

    data_file = fields.get("ElementDataFile", "")
    if not data_file or data_file.split()[0] == "LIST" or "%" in data_file:
        raise wrong("ElementDataFile", "LOCAL or the name of one data file")
    # A header must not make other files of the user part of a scan.
    if not is_beside(data_file) or data_file == path.name:
        raise wrong("ElementDataFile", "a data file in the folder of the header")
    if fields.get("NDims") not in ("2", "3", "4"):
        raise wrong("NDims", "3")
    axes = int(fields["NDims"])
    channels = fields.get("ElementNumberOfChannels", "1")
    if not channels.isdecimal() or int(channels) < 1:
        raise wrong("ElementNumberOfChannels", "1")
    if fields.get("ElementType") not in _TYPES:
        raise wrong("ElementType", f"one of {', '.join(_TYPES)}")
    for keys, optional, is_valid, expected in _NUMBERS:
        key = next((key for key in keys if key in fields), keys[0])
        if optional and key not in fields:
            continue
        length = axes**2 if keys[0] == "TransformMatrix" else axes
        try:
            values = [float(part) for part in fields.get(key, "").split()]
        except ValueError:
            values = []
        if len(values) != length or not all(map(math.isfinite, values)) or not is_valid(values):
            raise wrong(key, f"{length} {expected}")
    voxels = math.prod(int(float(n)) for n in fields["DimSize"].split())
    size = voxels * int(channels) * _TYPES[fields["ElementType"]]
    data = metaimage_data_file(path)
    if data is not None and not data.is_file():
        reason = f"the data file {data.name} does not exist; expected it next to the header"
        raise MetaImageError(path, None, reason, "missing data")
    source, start = (path, end) if data is None else (data, 0)
    compressed = fields.get("CompressedData", "False").lower() == "true"
    found = _inflated_size(path, source, start) if compressed else source.stat().st_size - start
    if found < size:
        reason = f"the data in {source.name} have {found} bytes; expected {size}"
        raise MetaImageError(path, None, reason, "short data")
    # A header of the data file, of unknown size if HeaderSize is -1, comes first.
    if found > size and (compressed or "HeaderSize" not in fields):
        reason = f"the data in {source.name} have {found} bytes; expected {size}"
        raise MetaImageError(path, None, reason, "broken data")


def _read_header(path: Path) -> tuple[dict[str, str], dict[str, int], int]:
    """Return the value and the line of each key, and the length of the header in bytes."""
    fields: dict[str, str] = {}
    lines: dict[str, int] = {}
    end = 0
    with open(path, "rb") as file:
        content = file.read(_MAX_HEADER)
    for number, line in enumerate(content.splitlines(keepends=True), start=1):
        key, equals, value = (part.strip() for part in line.decode("latin-1").partition("="))
        if not equals:
            break
        if key in fields:
            raise MetaImageError(path, number, f"{key} for a second time; expected it once")
        fields[key], lines[key] = value, number
        end += len(line)
        # ElementDataFile is always the last key; voxels may follow.
        if key == "ElementDataFile":
            break
    return fields, lines, end


def _inflated_size(path: Path, source: Path, start: int) -> int:
    """Return the uncompressed size of the data; SimpleITK ignores damaged streams."""
    stream = zlib.decompressobj()
    size = 0
    try:
        with open(source, "rb") as file:
            file.seek(start)
            while block := file.read(1 << 20):
                size += len(stream.decompress(block))
        if not stream.eof:
            # The checksum is at the end.
            raise zlib.error("the stream is incomplete")
    except zlib.error as error:
        reason = f"the compressed data in {source.name} cannot be read: {error}"
        raise MetaImageError(path, None, reason, "broken data") from None
    return size


def read_metaimage(path: str | os.PathLike) -> Volume:
    """Read a three-dimensional MetaImage.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The image is invalid (:func:`check_metaimage`) or not three-dimensional.
    """
    import SimpleITK as sitk  # noqa: N813

    check_metaimage(path)
    try:
        return Volume.from_sitk(sitk.ReadImage(str(path), imageIO="MetaImageIO"))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise MetaImageError(path, None, f"cannot be read: {reason}", "broken data") from None


def write_metaimage(path: str | os.PathLike, volume: Volume) -> None:
    """Write ``.mhd`` and ``.raw`` atomically; the header is written last.

    Args:
        path: The ``.mhd`` file.
        volume: The volume.
    """
    import SimpleITK as sitk  # noqa: N813

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".part-{path.name}-", dir=path.parent) as folder:
        temporary = Path(folder, path.name)
        with name_full_disk(path, temporary.with_suffix(".raw")):
            sitk.WriteImage(volume.to_sitk(), str(temporary))
        for suffix in (".raw", path.suffix):
            os.replace(temporary.with_suffix(suffix), path.with_suffix(suffix))
