"""Tracklets: boxes on slices, linked along z into one lesion each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .geometry import Geometry, voxels_to_published

__all__ = ["Tracklets"]


@dataclass(frozen=True, eq=False)
class Tracklets:
    """The tracklets of one volume as flat arrays, one tracklet after the other.

    Args:
        boxes: ``(M, 4)`` xyxy.
        scores: ``(M,)``.
        slices: ``(M,)`` slice indices; strictly ascending within a tracklet, except in files of
            other detectors.
        offsets: ``(T + 1,)``; tracklet ``t`` owns the rows ``offsets[t]:offsets[t + 1]``, at least
            one.

    Raises:
        ValueError: The arrays do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    slices: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.scores)
        if self.boxes.shape != (rows, 4) or self.slices.shape != (rows,):
            raise ValueError(
                f"{rows} scores come with boxes {self.boxes.shape} and slices {self.slices.shape}; "
                f"expected ({rows}, 4) and ({rows},)"
            )
        offsets = self.offsets
        if (
            not len(offsets)
            or offsets[0] != 0
            or offsets[-1] != rows
            or (np.diff(offsets) < 1).any()
        ):
            raise ValueError(f"offsets of {rows} boxes must ascend strictly from 0 to {rows}")

    @classmethod
    def empty(cls) -> Tracklets:
        """No tracklet at all."""
        return cls(np.empty((0, 4)), np.empty(0), np.empty(0, np.int64), np.zeros(1, np.int64))

    @classmethod
    def from_ids(
        cls, boxes: ArrayLike, scores: ArrayLike, slices: ArrayLike, ids: ArrayLike
    ) -> Tracklets:
        """Group boxes by the number of their tracklet.

        Args:
            boxes: ``(M, 4)``.
            scores: ``(M,)``.
            slices: ``(M,)``.
            ids: ``(M,)`` any integers; tracklets come out in ascending order of them.
        """
        ids, slices = np.asarray(ids), np.asarray(slices)
        order = np.lexsort((slices, ids))
        starts = np.flatnonzero(np.diff(ids[order], prepend=ids[order[:1]] - 1))
        return cls(
            np.asarray(boxes, dtype=np.float64).reshape(-1, 4)[order],
            np.asarray(scores, dtype=np.float64)[order],
            slices[order],
            np.append(starts, len(ids)).astype(np.int64),
        )

    @classmethod
    def from_harvester(
        cls, tracklets: Sequence[Sequence[tuple[int, Sequence[float]]]]
    ) -> Tracklets:
        """Convert one volume of Lesion Harvester's nested lists.

        Rows keep their order and their common precision, on which published figures depend.

        Args:
            tracklets: ``[[(z, [x1, y1, x2, y2, score]), ...], ...]``.

        Raises:
            ValueError: A tracklet is not of this form, has no box, or a number is not finite.
        """
        if not len(tracklets):
            return cls.empty()
        try:
            return cls._from_lists(tracklets)
        except ValueError:
            for index, tracklet in enumerate(tracklets):
                try:
                    cls._from_lists([tracklet])
                except ValueError as error:
                    raise ValueError(f"tracklet {index} {error}") from None
            raise

    @classmethod
    def _from_lists(cls, tracklets: Sequence) -> Tracklets:
        try:
            lengths = [len(tracklet) for tracklet in tracklets]
            slices = [z for tracklet in tracklets for z, _ in tracklet]
            rows = [row for tracklet in tracklets for _, row in tracklet]
        except (TypeError, ValueError):
            raise ValueError("is not a list of (z, [x1, y1, x2, y2, score])") from None
        if not all(lengths):
            raise ValueError("has no box; expected one or more")
        for z in slices:
            if type(z) is not int and not _is_whole(z):
                raise ValueError(f"has the slice {z!r}; expected a whole number")
        try:
            array = np.array(rows)
        except ValueError:
            raise ValueError("holds rows of several lengths; expected rows of 5 numbers") from None
        if array.ndim != 2 or array.shape[1] != 5 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"holds an array of shape {array.shape} and type {array.dtype}; expected rows of "
                "5 numbers"
            )
        if not np.isfinite(array).all():
            raise ValueError("holds NaN or infinity; expected finite numbers")
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        return cls(array[:, :4], array[:, 4], np.array(slices, dtype=np.int64), offsets)

    def to_harvester(self) -> list[list[tuple[int, list[float]]]]:
        """Convert to Lesion Harvester's nested lists of plain Python numbers."""
        rows = np.column_stack((self.boxes, self.scores)).tolist()
        entries = list(zip(self.slices.astype(np.int64).tolist(), rows, strict=True))
        offsets = self.offsets.tolist()
        return [entries[start:stop] for start, stop in zip(offsets[:-1], offsets[1:], strict=True)]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """``(T,)`` boxes of each tracklet."""
        return np.diff(self.offsets)

    @property
    def ids(self) -> np.ndarray:
        """``(M,)`` number of each box's tracklet."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def confidence(self) -> np.ndarray:
        """``(T,)`` largest score of each tracklet."""
        if not len(self):
            return np.empty(0)
        return np.maximum.reduceat(self.scores, self.offsets[:-1])

    def to_published(self, geometry: Geometry, published: Geometry) -> Tracklets:
        """Carry tracklets from resampled slices back onto the published ones.

        A tracklet on the slices ``first ... last`` fills the slab
        ``[first - 0.5, last + 0.5)``. Every published slice whose center lies in it gets a box and
        a score, interpolated linearly between the neighboring slices (gaps included) and
        held at the ends. Where no center lies in the slab, the published slice next to its middle
        gets them. The published slice next to the largest score takes that score, so that
        confidences stay what they were.

        Args:
            geometry: Geometry of the array that the tracklets lie in.
            published: Geometry of the published volume.

        Returns:
            The same tracklets in the same order with 1-based inclusive boxes in published pixels,
            on published slices.

        Raises:
            ValueError: The slices of a tracklet do not ascend strictly.
        """
        if not len(self):
            return self
        ascends = np.diff(self.slices) > 0
        ascends[self.offsets[1:-1] - 1] = True
        if not ascends.all():
            raise ValueError("the slices of a tracklet do not ascend strictly")
        depth = published.shape[0]
        centers = published.slices_to(geometry, np.arange(depth))
        first = self.slices[self.offsets[:-1]].astype(np.float64)
        last = self.slices[self.offsets[1:] - 1].astype(np.float64)
        low = np.searchsorted(centers, first - 0.5)
        high = np.searchsorted(centers, last + 0.5)
        between = high <= low
        middle = np.rint(geometry.slices_to(published, (first + last) / 2)).astype(np.int64)
        low = np.where(between, np.clip(middle, 0, depth - 1), low)
        counts = np.where(between, 1, high - low)
        offsets = np.concatenate(([0], np.cumsum(counts)))

        ids = np.repeat(np.arange(len(self)), counts)
        slices = np.arange(offsets[-1]) - offsets[ids] + low[ids]
        position = np.clip(centers[slices], first[ids], last[ids])
        below, above, weight = self._neighbors(ids, position)
        boxes = _mix(self.boxes[below], self.boxes[above], weight[:, None])
        scores = _mix(self.scores[below], self.scores[above], weight)

        confidence = self.confidence()
        own = np.repeat(np.arange(len(self)), self.lengths)
        top = _first_per_group(self.scores == confidence[own], self.offsets)
        distance = np.abs(centers[slices] - self.slices[top][ids])
        nearest = np.minimum.reduceat(distance, offsets[:-1])
        scores[_first_per_group(distance == nearest[ids], offsets)] = confidence
        boxes = voxels_to_published(geometry.boxes_to(published, boxes))
        return Tracklets(boxes, scores, slices, offsets)

    def _neighbors(
        self, ids: np.ndarray, position: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows before and after a slice position within a tracklet, and the latter's weight."""
        # One sorted key for all tracklets: a tracklet's slices, far from the next one's.
        origin = self.slices.min()
        stride = float(self.slices.max() - origin + 1)
        keys = self.ids * stride + (self.slices - origin)
        below = np.searchsorted(keys, ids * stride + (position - origin), side="right") - 1
        below = np.clip(below, self.offsets[ids], self.offsets[ids + 1] - 1)
        above = np.minimum(below + 1, self.offsets[ids + 1] - 1)
        gap = np.maximum(self.slices[above] - self.slices[below], 1)
        weight = np.clip((position - self.slices[below]) / gap, 0, 1)
        return below, above, weight


def _is_whole(z: Any) -> bool:
    # Some tools write slices as floats; only whole numbers are slices.
    whole = isinstance(z, Integral) and not isinstance(z, bool)
    return whole or (isinstance(z, float | np.floating) and float(z).is_integer())


def _mix(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # Exact at both ends, and between equal values.
    return np.where(weight < 1, below + (above - below) * weight, above)


def _first_per_group(chosen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """First True row of each group of rows, each of which has one."""
    rows = np.flatnonzero(chosen)
    return rows[np.searchsorted(rows, offsets[:-1])]
