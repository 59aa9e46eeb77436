"""Volumes on disk: compressed, chunked, read through a memory map without loading the rest.

A store file is one contiguous blosc2 array (``.b2nd``) of int16 with the geometry in its metadata;
any blosc2 reads it. The same volume always gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import blosc2
import cv2
import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..structures import Geometry, Volume
from ..structures.triples import triple
from .atomic import atomic_write
from .png_slices import contiguous_runs

__all__ = ["SUFFIX", "StoredVolume", "load_volume", "open_volume", "save_volume"]

SUFFIX = ".b2nd"

_META = "volume"
_FORMAT = 1
# Measured on CT-like noise (tools/analysis_tools/benchmark.py window): ZSTD at level 1 over byte
# shuffle is within a factor of two of the fastest codec and a sixth smaller than LZ4.
_CODEC = blosc2.Codec.ZSTD
_LEVEL = 1
_BLOCK_ROWS = 64
_BLOCK_VOXELS = 32 * 1024
# In slices: a position as close to a stored slice is that slice, whose neighbor is not read.
_SAME_POSITION = 1e-6


def _block_shape(chunk: tuple[int, int, int]) -> tuple[int, int, int]:
    """Blocks that fit into the second-level cache: strips of a slice, or cubes of a 3D chunk."""
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
        path: The file, by custom ``.b2nd``.
        volume: Voxels of dtype int16.
        chunk_shape: ``(D, H, W)`` of the pieces that are compressed together. By default one slice,
            which suits windows of whole slices; for crops something like (32, 64, 64).

    Raises:
        InputError: The voxels are not int16, or the chunk shape is not three positive numbers.
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
            # With several threads the chunks' order in the file depends on timing.
            nthreads=1,
        ),
    )
    stored.schunk.vlmeta[_META] = {
        "format": _FORMAT,
        "spacing": list(volume.spacing),
        "origin": list(volume.origin),
        "direction": list(volume.direction),
    }
    with atomic_write(path) as temporary:
        temporary.write_bytes(stored.to_cframe())


class StoredVolume:
    """A volume in the store, read piece by piece. Made by :func:`open_volume`.

    Reading uses one thread and no state that a fork would break, so handles may be opened before
    data loader workers are forked, and pickled for those that are spawned.

    Attributes:
        path: The file.
        geometry: Size, spacing, origin and direction.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"{self.path} does not exist; expected a volume of the store")
        try:
            self._array = blosc2.open(
                str(self.path), mode="r", mmap_mode="r", dparams=blosc2.DParams(nthreads=1)
            )
            meta = self._array.schunk.vlmeta[_META]
            self.geometry = Geometry(
                self._array.shape, meta["spacing"], meta["origin"], meta["direction"]
            )
        except Exception as error:
            raise InputError(
                f"{self.path} is no volume of the store, or truncated "
                f"({type(error).__name__}: {error})"
            ) from error
        if meta["format"] != _FORMAT or self._array.dtype != np.int16:
            raise InputError(
                f"{self.path} holds format {meta['format']}, {self._array.dtype}, shape "
                f"{self.shape}; expected format {_FORMAT}, int16"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(D, H, W)``."""
        return self.geometry.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """``(x, y, z)`` in mm."""
        return self.geometry.spacing

    def __reduce__(self) -> tuple:
        return type(self), (self.path,)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, shape={self.shape})"

    def read_crop(self, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
        """Read a box of voxels; beyond the volume its edges repeat.

        Args:
            start: First voxel ``(z, y, x)``, may be negative.
            stop: One past the last voxel ``(z, y, x)``, may exceed the shape.

        Returns:
            int16 of shape ``stop - start``.

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
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{self.path} is damaged: {error}") from error
        for axis, (a, b, n) in enumerate(zip(start, stop, self.shape)):
            if a < 0 or b > n:
                inside = np.clip(np.arange(a, b), 0, n - 1) - lows[axis]
                crop = crop.take(inside, axis=axis)
        return crop

    def read_slices(self, start: int, stop: int) -> np.ndarray:
        """Read whole slices; beyond the volume the first or last slice repeats.

        Args:
            start: First slice, may be negative.
            stop: One past the last slice, may exceed the depth.

        Returns:
            int16 ``(stop - start, H, W)``.

        Raises:
            InputError: ``start >= stop``, or the file is damaged.
        """
        return self.read_crop((start, 0, 0), (stop, *self.shape[1:]))

    def interpolate_slices(self, positions: ArrayLike) -> np.ndarray:
        """Read slices at continuous positions along z, interpolated linearly between stored ones.

        Only the slices next to the positions are read; beyond the volume the first or last slice
        repeats.

        Args:
            positions: ``(n,)`` positions in slices; a whole number is the stored slice itself.

        Returns:
            float32 HU ``(n, H, W)``.

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
            # One pass over the pixels, without copies as floats.
            cv2.addWeighted(
                planes[low], 1 - weight, planes[high], weight, 0, dst=target, dtype=cv2.CV_32F
            )
        return result

    def load(self) -> Volume:
        """Read everything."""
        array = self.read_crop((0, 0, 0), self.shape)
        return Volume.with_geometry(array, self.geometry)


def open_volume(path: str | os.PathLike) -> StoredVolume:
    """Open a volume for reading pieces of it; nothing but its geometry is read yet.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no volume of the store.
    """
    return StoredVolume(path)


def load_volume(path: str | os.PathLike) -> Volume:
    """Read a whole volume.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no volume of the store.
    """
    return open_volume(path).load()
