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

__all__ = ["EnsembleStore"]

_VISITS = torch.iinfo(torch.int16).max


class EnsembleStore:
    """Averages Z and numbers of visits of the anchors of scans, in memory or on disk.

    Values are float16 and int16, four bytes an anchor: 22 MB for a scan of 340³ voxels with
    strides from 2. In distributed training each process has its own store, of the patches that it
    saw; on disk in its own subfolder.

    Args:
        alpha: Weight of the old average.
        strides: Stride of each level of anchors.
        folder: Folder of the files; by default values are in memory. The files are not part of a
            checkpoint: a resumed training continues with what they contain.
    """

    def __init__(self, alpha: float, strides: Sequence[int], folder: Path | None = None) -> None:
        self.alpha = alpha
        self.strides = tuple(strides)
        self.folder = None if folder is None else folder / f"rank{get_rank()}"
        self.resumed = False
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
        """Add the probabilities (A,) of a crop: ``Z = alpha Z + (1 - alpha) p``, ``t = t + 1``."""
        averages, visits = self._gather(origin, size)
        averages = torch.lerp(scores.to(averages), averages, self.alpha)
        levels = zip(
            split_levels(averages, size, self.strides),
            split_levels((visits + 1).clamp(max=_VISITS), size, self.strides),
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
        if origin.scan not in self._scans:
            self._scans[origin.scan] = (
                self._array(f"{origin.scan}.average", count, np.float16),
                self._array(f"{origin.scan}.visits", count, np.int16),
            )
        averages, visits = self._scans[origin.scan]
        if not len(averages) == len(visits) == count:
            raise InputError(
                f"TemporalEnsembling: {len(averages)} anchors of scan {origin.scan} are stored; "
                f"expected {count} of its {' x '.join(map(str, size))} voxels (D, H, W)"
            )
        return split_levels(averages, size, self.strides), split_levels(visits, size, self.strides)

    def _array(self, name: str, count: int, dtype: type) -> Tensor:
        """Return zeros, or the content of a file of a resumed training."""
        if self.folder is None:
            return torch.from_numpy(np.zeros(count, dtype))
        path = self.folder / f"{quote(name, safe='')}.npy"
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            return torch.from_numpy(np.lib.format.open_memmap(path, "w+", dtype, (count,)))
        if not self.resumed:
            raise InputError(
                f"TemporalEnsembling: {path} is from another training, which was not resumed; "
                "expected an empty folder"
            )
        return torch.from_numpy(np.lib.format.open_memmap(path, "r+"))

    def state_dict(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return averages and visits of each scan in memory; nothing if they are on disk."""
        if self.folder is not None:
            return {}
        return {
            scan: (values[0].clone(), values[1].clone()) for scan, values in self._scans.items()
        }

    def load_state_dict(self, state: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Restore what :meth:`state_dict` returned; files are opened when they are needed."""
        self.resumed = True
        # MMEngine loads a checkpoint to the device of the model.
        self._scans = {
            scan: (values[0].to("cpu", copy=True), values[1].to("cpu", copy=True))
            for scan, values in state.items()
        }
