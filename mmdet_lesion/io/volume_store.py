"""Store of compressed, chunked volumes, parts of which are read through a memory map.

A stored volume is a contiguous blosc2 array (``.b2nd``) of int16 with the geometry in its metadata,
which any blosc2 can read. The same volume always gives the same bytes. A checksum of voxels and
geometry is verified whenever a whole volume is read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import blosc2
import cv2
import numpy as np
import xxhash
from numpy.typing import ArrayLike

from ..errors import InputError
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .atomic import atomic_write
from .png_slices import contiguous_runs

__all__ = [
    "SUFFIX",
    "StoredVolume",
    "file_checksum",
    "load_volume",
    "open_volume",
    "save_volume",
]

SUFFIX = ".b2nd"

_META = "volume"
_FORMAT = 2
# On CT-like noise (tools/analysis_tools/benchmark.py window), ZSTD at level 1 after byte shuffle is
# at most twice as slow as the fastest codec, and its files are a sixth smaller than those of LZ4.
_CODEC = blosc2.Codec.ZSTD
_LEVEL = 1
_BLOCK_ROWS = 64
_BLOCK_VOXELS = 32 * 1024
# Distance in slices below which a position is that of a stored slice, which is not interpolated.
_SAME_POSITION = 1e-6


def _block_shape(chunk: tuple[int, int, int]) -> tuple[int, int, int]:
    """Choose blocks that fit into the L2 cache: strips of a slice, or cubes of a 3D chunk."""
    if chunk[0] == 1:
        return 1, min(_BLOCK_ROWS, chunk[1]), chunk[2]
    block = list(chunk)
    while np.prod(block) > _BLOCK_VOXELS:
        axis = int(np.argmax(block))
        block[axis] = -(-block[axis] // 2)
    return triple(block)


def save_volume(
    path: str | os.PathLike, volume: Volume, chunk_shape: Sequence[int] | None = None
) -> None:
    """Write a volume atomically.

    Args:
        path: The file, usually ``.b2nd``.
        volume: Volume of dtype int16.
        chunk_shape: Size ``(D, H, W)`` of the chunks. The default is one slice, which suits slice
            stacks; (32, 64, 64) suits patches.

    Raises:
        InputError: The dtype is not int16, or ``chunk_shape`` is not three positive numbers.
    """
    if volume.array.dtype != np.int16:
        raise InputError(f"{path}: the voxels are {volume.array.dtype}; expected int16")
    chunk = (1, *volume.shape[1:]) if chunk_shape is None else tuple(map(int, chunk_shape))
    if len(chunk) != 3 or min(chunk) < 1:
        raise InputError(f"{path}: chunk_shape is {chunk}; expected three positive numbers")
    chunks = triple(min(c, n) for c, n in zip(chunk, volume.shape, strict=True))
    stored = blosc2.asarray(
        np.ascontiguousarray(volume.array),
        chunks=chunks,
        blocks=_block_shape(chunks),
        cparams=blosc2.CParams(
            codec=_CODEC,
            clevel=_LEVEL,
            filters=[blosc2.Filter.SHUFFLE],
            filters_meta=[0],
            # With several threads, the order of the chunks in the file depends on timing.
            nthreads=1,
        ),
    )
    stored.schunk.vlmeta[_META] = {
        "format": _FORMAT,
        "spacing": list(volume.spacing),
        "origin": list(volume.origin),
        "direction": list(volume.direction),
        "checksum": _checksum(volume),
    }
    with atomic_write(path) as temporary:
        temporary.write_bytes(stored.to_cframe())


def _checksum(volume: Volume) -> str:
    """Return a hash of voxels and geometry."""
    state = xxhash.xxh3_64(json.dumps(volume.geometry.to_dict()).encode())
    state.update(np.ascontiguousarray(volume.array).data.cast("B"))
    return state.hexdigest()


def file_checksum(path: str | os.PathLike) -> str:
    """Return a hash of a file's bytes, which conversions record to verify the file on resuming."""
    state = xxhash.xxh3_64()
    with open(path, "rb") as file:
        while block := file.read(1 << 22):
            state.update(block)
    return state.hexdigest()


class StoredVolume:
    """Stored volume for lazy reading, opened by :func:`open_volume`.

    Handles can be opened before data loader workers are forked, since reading uses one thread and
    no state that a fork invalidates, and can be pickled for workers that are spawned.

    Attributes:
        path: The file.
        geometry: Size, spacing, origin and direction.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist; expected a stored volume")
        try:
            self._array = blosc2.open(
                str(self.path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1)
            )
            meta = self._array.schunk.vlmeta[_META]
            found, dtype = meta["format"], self._array.dtype
            self.geometry = Geometry(
                self._array.shape, meta["spacing"], meta["origin"], meta["direction"]
            )
        except Exception as error:
            raise InputError(
                f"{self.path} is not a stored volume, or damaged ({type(error).__name__}: {error})"
            ) from error
        if found != _FORMAT or dtype != np.int16:
            raise InputError(
                f"{self.path} has format {found} and dtype {dtype}; expected format {_FORMAT} and "
                "int16: convert again"
            )
        self._stored_checksum = meta.get("checksum")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Size ``(D, H, W)``."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Spacing ``(x, y, z)`` in mm."""
        return self.geometry.spacing

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, shape={self.shape})"

    def read_crop(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        """Read a crop; beyond the volume, edge voxels are repeated.

        Args:
            start: First voxel ``(z, y, x)``; may be negative.
            stop: One past the last voxel ``(z, y, x)``; may exceed the shape.

        Returns:
            Voxels of shape ``stop - start``, int16.

        Raises:
            InputError: The crop is empty, or the file is damaged.
        """
        if len(start) != 3 or len(stop) != 3 or any(a >= b for a, b in zip(start, stop)):
            raise InputError(
                f"{self.path}: the crop from {tuple(start)} to {tuple(stop)} is empty; expected "
                "start < stop on three axes"
            )
        lows = [min(max(a, 0), n - 1) for a, n in zip(start, self.shape)]
        highs = [min(max(b, 1), n) for b, n in zip(stop, self.shape)]
        try:
            crop = self._array[tuple(slice(a, b) for a, b in zip(lows, highs))]
        except (RuntimeError, ValueError, MemoryError) as error:
            raise InputError(f"{self.path} is damaged: {error}") from error
        for axis, (a, b, n) in enumerate(zip(start, stop, self.shape)):
            if a < 0 or b > n:
                inside = np.clip(np.arange(a, b), 0, n - 1) - lows[axis]
                crop = crop.take(inside, axis=axis)
        return crop

    def read_slices(self, start: int, stop: int) -> np.ndarray:
        """Read whole slices; beyond the volume, the first or last slice is repeated.

        Args:
            start: First slice; may be negative.
            stop: One past the last slice; may exceed the depth.

        Returns:
            Slices, shape (stop - start, H, W), int16.

        Raises:
            InputError: The range is empty, or the file is damaged.
        """
        return self.read_crop((start, 0, 0), (stop, *self.shape[1:]))

    def interpolate_slices(self, positions: ArrayLike) -> np.ndarray:
        """Read slices at continuous positions along z by linear interpolation.

        Only neighboring slices of the positions are read. Beyond the volume, the first or last
        slice is repeated.

        Args:
            positions: Positions in slices, shape (N,); whole numbers are stored slices.

        Returns:
            HU, shape (N, H, W), float32.

        Raises:
            InputError: The file is damaged.
        """
        positions = np.clip(np.asarray(positions, dtype=np.float64), 0, self.shape[0] - 1)
        nearest = np.rint(positions)
        positions = np.where(abs(positions - nearest) < _SAME_POSITION, nearest, positions)
        below = np.floor(positions).astype(np.int64)
        weights = positions - below
        above = below + (weights > 0)
        needed = np.unique((below, above))
        runs = (self.read_slices(run[0], run[-1] + 1) for run in contiguous_runs(needed.tolist()))
        planes = dict(zip(needed.tolist(), (plane for run in runs for plane in run), strict=True))
        result = np.empty((len(positions), *self.shape[1:]), dtype=np.float32)
        for target, low, high, weight in zip(
            result, below.tolist(), above.tolist(), weights.tolist(), strict=True
        ):
            # A single pass over the pixels without float copies.
            cv2.addWeighted(
                planes[low], 1 - weight, planes[high], weight, 0, dst=target, dtype=cv2.CV_32F
            )
        return result

    def load(self) -> Volume:
        """Read the whole volume and verify its checksum.

        Raises:
            InputError: The file is damaged.
        """
        array = self.read_crop((0, 0, 0), self.shape)
        volume = Volume.with_geometry(array, self.geometry)
        if _checksum(volume) != self._stored_checksum:
            raise InputError(
                f"{self.path} is damaged: its checksum is wrong; expected the file that was written"
            )
        return volume


def open_volume(path: str | os.PathLike) -> StoredVolume:
    """Open a volume for lazy reading; only its geometry is read.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is not a stored volume.
    """
    return StoredVolume(path)


def load_volume(path: str | os.PathLike) -> Volume:
    """Read a whole volume.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is not a stored volume, or is damaged.
    """
    return open_volume(path).load()
