"""Exponential averages of the anchors' probabilities of whole scans."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import torch
from mmengine.dist import get_rank
from torch import Tensor

from ....errors import InputError
from .context import PatchOrigin
from .functional import split_levels

__all__ = ["EnsembleStore", "check_folder"]

_VISITS = torch.iinfo(torch.int16).max


class EnsembleStore:
    """Averages Z and numbers of visits of the anchors of scans, in memory or on disk.

    Values are float16 and int16, four bytes an anchor: 22 MB for a scan of 340³ voxels with
    strides from 2. In distributed training each process has its own store, of the patches that it
    saw; on disk in its own subfolder.

    Args:
        alpha: Weight of the old average.
        strides: Stride of each level of anchors.
        folder: Folder of the files (:func:`check_folder`); by default values are in memory. The
            files are not part of a checkpoint: a resumed training continues with what they contain.
    """

    def __init__(self, alpha: float, strides: Sequence[int], folder: Path | None = None) -> None:
        self.alpha = alpha
        self.strides = tuple(strides)
        self.folder = folder
        self._scans: dict[str, tuple[Tensor, Tensor]] = {}

    def read(self, origin: PatchOrigin, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return ``Z / (1 - alpha^t)`` of the anchors of a crop, and the numbers t of visits.

        Args:
            origin: Origin of the crop; its symmetry is not applied.
            size: Size (D, H, W) of the crop in voxels.

        Returns:
            Averages, shape (A,), float32, 0 where t is 0; and t, shape (A,), int64. Anchors beyond
            the scan have t = 0.
        """
        averages, visits = self._gather(origin, size)
        divisor = 1 - self.alpha**visits
        return torch.where(visits > 0, averages / divisor.clamp(min=1e-6), 0.0), visits

    def update(self, origin: PatchOrigin, size: Sequence[int], scores: Tensor) -> None:
        """Add the probabilities (A,) of a crop: ``Z = alpha Z + (1 - alpha) p``, ``t = t + 1``.

        Anchors whose probability is not finite keep Z and t.
        """
        averages, visits = self._gather(origin, size)
        finite = scores.isfinite()
        new = torch.lerp(scores.to(averages), averages, self.alpha)
        averages, visits = torch.where(finite, new, averages), visits + finite
        levels = zip(
            split_levels(averages, size, self.strides),
            split_levels(visits.clamp(max=_VISITS), size, self.strides),
            *self._levels(origin),
            self._places(origin, size),
        )
        for average, visit, stored, stored_visits, (inside, place) in levels:
            stored[place] = average[inside].to(stored.dtype)
            stored_visits[place] = visit[inside].to(stored_visits.dtype)

    def _gather(self, origin: PatchOrigin, size: Sequence[int]) -> tuple[Tensor, Tensor]:
        shapes = [[edge // stride for edge in size] for stride in self.strides]
        count = sum(int(np.prod(shape)) for shape in shapes)
        averages, visits = torch.zeros(count), torch.zeros(count, dtype=torch.long)
        levels = zip(
            split_levels(averages, size, self.strides),
            split_levels(visits, size, self.strides),
            *self._levels(origin),
            self._places(origin, size),
        )
        for average, visit, stored, stored_visits, (inside, place) in levels:
            average[inside] = stored[place].float()
            visit[inside] = stored_visits[place].long()
        return averages, visits

    def _places(self, origin: PatchOrigin, size: Sequence[int]) -> list[tuple]:
        """Return the slices of the crop's and of the scan's map that overlap, for each level."""
        if any(first % self.strides[-1] for first in origin.start):
            raise InputError(
                f"TemporalEnsembling: a patch of scan {origin.scan} starts at {origin.start} "
                f"(z, y, x); expected multiples of the largest stride, so that its anchors are "
                f"those of the scan: align={self.strides[-1]} of LoadPatch"
            )
        places = []
        for stride in self.strides:
            spans = [
                (
                    first // stride,
                    max(first, 0) // stride,
                    max(min(first + edge, most), 0) // stride,
                )
                for first, edge, most in zip(origin.start, size, self._padded(origin))
            ]
            places.append(
                (
                    tuple(slice(low - first, max(low, high) - first) for first, low, high in spans),
                    tuple(slice(low, max(low, high)) for _, low, high in spans),
                )
            )
        return places

    def _padded(self, origin: PatchOrigin) -> tuple[int, ...]:
        stride = self.strides[-1]
        return tuple(-(-edge // stride) * stride for edge in origin.scan_size)

    def _levels(self, origin: PatchOrigin) -> tuple[list[Tensor], list[Tensor]]:
        """Return the maps of averages and visits of a scan, which are created at first use."""
        size = self._padded(origin)
        count = sum(int(np.prod([edge // stride for edge in size])) for stride in self.strides)
        averages, visits = self._scan(origin.scan, count)
        if not len(averages) == len(visits) == count:
            raise InputError(
                f"TemporalEnsembling: {len(averages)} anchors of scan {origin.scan} are stored; "
                f"expected {count} of its {' x '.join(map(str, size))} voxels (D, H, W)"
            )
        return split_levels(averages, size, self.strides), split_levels(visits, size, self.strides)

    def _scan(self, scan: str, count: int) -> tuple[Tensor, Tensor]:
        if self.folder is not None:
            # Opened for each visit, since every open map takes a file descriptor.
            folder = _own_folder(self.folder)
            return (
                _open_file(folder, f"{scan}.average", count, np.float16),
                _open_file(folder, f"{scan}.visits", count, np.int16),
            )
        if scan not in self._scans:
            zeros = torch.zeros(count, dtype=torch.float16)
            self._scans[scan] = zeros, zeros.to(torch.int16)
        return self._scans[scan]

    def state_dict(self) -> dict:
        """Return the ``folder`` or None, and averages and visits of the ``scans`` in memory."""
        folder = None if self.folder is None else str(self.folder)
        scans = {one: (values[0].clone(), values[1].clone()) for one, values in self._scans.items()}
        return dict(folder=folder, scans=scans)

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned; with a folder, scans are written to files."""
        for scan, values in state.get("scans", {}).items():
            for stored, value in zip(self._scan(scan, len(values[0])), values):
                stored.copy_(value)


def check_folder(folder: Path | None, state: dict) -> None:
    """Raise unless a training finds the averages that it continues with, and no others.

    Args:
        folder: Folder of the training, an absolute path, or None.
        state: State that is resumed (:meth:`EnsembleStore.state_dict`), empty in a new training.

    Raises:
        InputError: The averages of the checkpoint are files elsewhere, or the folder has those of
            another training.
    """
    before = state.get("folder")
    if before is None:
        own = None if folder is None else _own_folder(folder)
        if own is not None and any(own.glob("*.npy")):
            raise InputError(
                f"TemporalEnsembling: {own} has averages of another training, which is not "
                "resumed; expected an empty folder: delete it, take another work folder, or "
                "resume a checkpoint of that training"
            )
    elif folder is None:
        raise InputError(
            f"TemporalEnsembling: the averages of the checkpoint are files in {before}, not in "
            f"memory; expected folder={before!r}"
        )
    # A work folder may have been moved.
    elif not folder.is_dir() or (str(folder) != before and Path(before).is_dir()):
        raise InputError(
            f"TemporalEnsembling: the averages of the checkpoint are files in {before}, those of "
            f"this training in {folder}; expected folder={before!r}, or the old folder moved to "
            "the new one"
        )


def _open_file(folder: Path, name: str, count: int, dtype: type) -> Tensor:
    """Map a file, which is created with zeros at first use."""
    path = folder / f"{quote(name, safe='')}.npy"
    if path.exists():
        return torch.from_numpy(np.lib.format.open_memmap(path, "r+"))
    folder.mkdir(parents=True, exist_ok=True)
    return torch.from_numpy(np.lib.format.open_memmap(path, "w+", dtype, (count,)))


def _own_folder(folder: Path) -> Path:
    return folder / f"rank{get_rank()}"
