"""DeepLesion's 16-bit PNG slices, checked before they are believed."""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

__all__ = ["BadSliceError", "contiguous_runs", "list_slices", "read_hu"]

_SLICE_NAME = re.compile(r"(?:\d{3}|[1-9]\d{3,})\.png")

# DeepLesion's PNGs hold HU + 32768.
_OFFSET_BIT = np.uint16(0x8000)
_PADDING = -32768
_AIR = -1024
# Scanners give -1024…3071, some padding -2000 or -3024, metal up to 31743 on the extended scale.
_LOWEST = -8192
# More than half of an image as dense as this is metal or no CT.
_HIGHEST_MEDIAN = 8192
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with alpha", 6: "RGB with alpha"}


class BadSliceError(ValueError):
    """A PNG that is no slice; ``kind`` names the trouble in a word or two."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _check_png(data: bytes) -> None:
    """Walk over the chunks: image decoders return half an image for half a file."""
    if not data.startswith(_SIGNATURE):
        what = "is empty" if not data else "does not start like a PNG"
        raise BadSliceError("broken PNG", f"the file {what}")
    position = len(_SIGNATURE)
    name = b""
    while name != b"IEND":
        if position + 12 > len(data):
            raise BadSliceError("broken PNG", f"the file is truncated at {len(data)} bytes")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if end > len(data):
            raise BadSliceError("broken PNG", f"the file is truncated at {len(data)} bytes")
        (expected,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(data[position + 4 : end - 4]) != expected:
            raise BadSliceError("broken PNG", f"the checksum at byte {end - 4} is wrong")
        if position == len(_SIGNATURE):
            if name != b"IHDR" or length != 13:
                raise BadSliceError("broken PNG", "the file does not start with an image header")
            depth, color = data[position + 16], data[position + 17]
            if (depth, color) != (16, 0):
                found = _COLOR_TYPES.get(color, f"color type {color}")
                raise BadSliceError(
                    "not 16-bit", f"the PNG is {depth}-bit {found}; expected 16-bit gray"
                )
        position = end


def read_hu(path: Path) -> np.ndarray:
    """Read a slice.

    Pixels of value 0 are padding around the scanner's field of view and become air.

    Args:
        path: The PNG, 16-bit gray, HU + 32768.

    Returns:
        int16 HU ``(H, W)``.

    Raises:
        BadSliceError: The file is broken, not 16-bit gray, or its values are not HU.
        OSError: The file cannot be read.
    """
    data = path.read_bytes()
    _check_png(data)
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise BadSliceError("broken PNG", "the image data cannot be decoded")
    # Flipping the top bit is subtracting 32768 in two's complement.
    hu = np.bitwise_xor(pixels, _OFFSET_BIT).view(np.int16)
    padding = hu == _PADDING
    padded = bool(padding.any())
    measured = hu[~padding] if padded else hu
    if 2 * measured.size <= hu.size or measured.min() < _LOWEST:
        raise BadSliceError(
            "not HU",
            f"the values are {hu.min()} to {hu.max()} after subtracting 32768; expected HU, "
            f"{_LOWEST} or more",
        )
    if np.median(measured) > _HIGHEST_MEDIAN:
        raise BadSliceError(
            "not HU",
            f"the median is {np.median(measured):.0f} after subtracting 32768; expected HU, "
            f"{_HIGHEST_MEDIAN} or less",
        )
    if padded:
        hu[padding] = _AIR
    return hu


def list_slices(folder: Path) -> tuple[list[tuple[int, int]], list[str]]:
    """Slices of a series.

    Args:
        folder: Folder of ``{slice:03d}.png``.

    Returns:
        Sorted ``(slice, file size)``, and the names of PNGs that are no slices.
    """
    slices, others = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if _SLICE_NAME.fullmatch(entry.name):
                slices.append((int(entry.name[:-4]), entry.stat().st_size))
            elif entry.name.lower().endswith(".png"):
                others.append(entry.name)
    return sorted(slices), sorted(others)


def contiguous_runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Split sorted numbers where one is missing: ``[1, 2, 4]`` gives ``[1, 2]`` and ``[4]``."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
