"""Reading and validation of DeepLesion's 16-bit PNG slices."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

__all__ = [
    "BadSliceError",
    "contiguous_runs",
    "is_16bit_png",
    "list_slices",
    "read_hu",
    "slice_number",
]

_SLICE_NAME = re.compile(r"(?:\d{3}|[1-9]\d{3,})\.png")
# Signature, length and name of the first chunk, width, height; then bit depth and color type.
_DEPTH_AND_COLOR = slice(24, 26)

# DeepLesion's PNGs contain HU + 32768.
_OFFSET_BIT = np.uint16(0x8000)
_PADDING = -32768
_AIR = -1024
# Scanners give -1024 … 3071, padding may be -2000 or -3024, and metal up to 31743.
_LOWEST = -8192
# In a CT image, less than half of the pixels are denser.
_HIGHEST_MEDIAN = 8192


class BadSliceError(ValueError):
    """Raised for a PNG that is not a valid slice.

    Args:
        kind: Short name of the error.
        message: Found and expected content.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def _check_png(data: bytes) -> None:
    """Check the structure of a PNG, since decoders return half an image for a truncated file."""
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            mode = image.mode
            image.verify()
    # Pillow raises various exceptions, among them SyntaxError.
    except Exception:
        raise BadSliceError(
            "broken PNG", "the file is empty, truncated or damaged; expected a PNG"
        ) from None
    # Pillow before 11 opens 16-bit grayscale as mode I.
    if mode not in ("I;16", "I"):
        raise BadSliceError("not 16-bit", f"the PNG has mode {mode}; expected 16-bit grayscale")


def read_hu(path: Path) -> np.ndarray:
    """Read a slice.

    Pixels of value 0 are padding around the scanner's field of view and become air.

    Args:
        path: 16-bit grayscale PNG of HU + 32768.

    Returns:
        HU, shape (H, W), int16.

    Raises:
        BadSliceError: The file is broken, not 16-bit grayscale, or its values are not HU.
        OSError: The file cannot be read.
    """
    data = path.read_bytes()
    _check_png(data)
    pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.ndim != 2:
        raise BadSliceError("broken PNG", "the image data cannot be decoded; expected a PNG")
    # In two's complement, flipping the top bit subtracts 32768.
    hu = np.bitwise_xor(pixels, _OFFSET_BIT).view(np.int16)
    padding = hu == _PADDING
    padded = bool(padding.any())
    measured = hu[~padding] if padded else hu
    if 2 * measured.size <= hu.size or measured.min() < _LOWEST:
        raise BadSliceError(
            "not HU",
            f"the values are {hu.min()} to {hu.max()} after subtracting 32768; expected HU, "
            f"{_LOWEST} or higher",
        )
    if np.median(measured) > _HIGHEST_MEDIAN:
        raise BadSliceError(
            "not HU",
            f"the median is {np.median(measured):.0f} after subtracting 32768; expected HU, "
            f"{_HIGHEST_MEDIAN} or lower",
        )
    if padded:
        hu[padding] = _AIR
    return hu


def slice_number(name: str) -> int | None:
    """Return the number of a slice from its file name, such as 1 from ``001.png``, or None."""
    return int(name.removesuffix(".png")) if _SLICE_NAME.fullmatch(name) else None


def is_16bit_png(path: Path) -> bool:
    """Return whether the header of a file is that of a 16-bit grayscale PNG."""
    with open(path, "rb") as file:
        header = file.read(_DEPTH_AND_COLOR.stop)
    return header.startswith(b"\x89PNG") and header[_DEPTH_AND_COLOR] == b"\x10\x00"


def list_slices(folder: Path) -> tuple[list[tuple[int, int]], list[str]]:
    """List the slices of a series.

    Args:
        folder: Folder of ``{slice:03d}.png``.

    Returns:
        Number and file size of each slice, sorted, and the names of all other PNGs.
    """
    slices, others = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            number = slice_number(entry.name)
            if number is not None:
                slices.append((number, entry.stat().st_size))
            elif entry.name.lower().endswith(".png"):
                others.append(entry.name)
    return sorted(slices), sorted(others)


def contiguous_runs(numbers: Sequence[int]) -> Iterator[list[int]]:
    """Split sorted numbers at gaps: ``[1, 2, 4]`` gives ``[1, 2]`` and ``[4]``."""
    run: list[int] = []
    for number in numbers:
        if run and number != run[-1] + 1:
            yield run
            run = []
        run.append(number)
    if run:
        yield run
