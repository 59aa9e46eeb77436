"""Tracklets: boxes on slices, linked along z to one lesion each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from .geometry import Geometry, voxels_to_published

__all__ = ["Tracklets", "is_whole_number"]


@dataclass(frozen=True, eq=False)
class Tracklets:
    """Tracklets of one volume as concatenated arrays.

    Args:
        boxes: Boxes xyxy, shape (M, 4).
        scores: Scores, shape (M,).
        slices: Slice indices, shape (M,); strictly ascending within a tracklet, except in files
            of other detectors.
        offsets: Row offsets, shape (T + 1,). Tracklet ``t`` consists of the rows
            ``offsets[t]:offsets[t + 1]``, at least one.

    Raises:
        ValueError: The shapes or offsets are inconsistent.
    """

    boxes: np.ndarray
    scores: np.ndarray
    slices: np.ndarray
    offsets: np.ndarray

    def __post_init__(self) -> None:
        rows = len(self.scores)
        if self.boxes.shape != (rows, 4) or self.slices.shape != (rows,):
            raise ValueError(
                f"{rows} scores have boxes {self.boxes.shape} and slices {self.slices.shape}; "
                f"expected ({rows}, 4) and ({rows},)"
            )
        offsets = self.offsets
        if (
            not len(offsets)
            or offsets[0] != 0
            or offsets[-1] != rows
            or (np.diff(offsets) < 1).any()
        ):
            raise ValueError(
                f"offsets are {offsets}; expected strictly ascending numbers from 0 to {rows}"
            )

    @classmethod
    def empty(cls) -> Tracklets:
        """Return zero tracklets."""
        return cls(np.empty((0, 4)), np.empty(0), np.empty(0, np.int64), np.zeros(1, np.int64))

    @classmethod
    def from_ids(
        cls, boxes: ArrayLike, scores: ArrayLike, slices: ArrayLike, ids: ArrayLike
    ) -> Tracklets:
        """Group boxes by tracklet index.

        Args:
            boxes: Boxes xyxy, shape (M, 4).
            scores: Scores, shape (M,).
            slices: Slice indices, shape (M,).
            ids: Tracklet index of each box, shape (M,), which need not be consecutive. Tracklets
                are sorted by it.
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
        """Convert Lesion Harvester's nested lists of one volume.

        The order and common precision of the rows are kept, since published metrics depend on
        them.

        Args:
            tracklets: ``[[(z, [x1, y1, x2, y2, score]), ...], ...]``.

        Raises:
            ValueError: A tracklet does not have this form, has no box, or a number is not finite.
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
            if not is_whole_number(z):
                raise ValueError(f"has the slice {z!r}; expected a whole number")
        try:
            array = np.array(rows)
        except ValueError:
            raise ValueError("has rows of several lengths; expected rows of 5 numbers") from None
        if array.ndim != 2 or array.shape[1] != 5 or array.dtype.kind not in "fiu":
            raise ValueError(
                f"has an array of shape {array.shape} and type {array.dtype}; expected rows of "
                "5 numbers"
            )
        if not np.isfinite(array).all():
            raise ValueError("contains NaN or infinity; expected finite numbers")
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
        """Number of boxes of each tracklet, shape (T,)."""
        return np.diff(self.offsets)

    @property
    def ids(self) -> np.ndarray:
        """Tracklet index of each box, shape (M,)."""
        return np.repeat(np.arange(len(self)), self.lengths)

    def confidence(self) -> np.ndarray:
        """Return the highest score of each tracklet, shape (T,)."""
        if not len(self):
            return np.empty(0)
        return np.maximum.reduceat(self.scores, self.offsets[:-1])

    def enclosing_boxes(self) -> np.ndarray:
        """Return the smallest 3D box around each tracklet.

        Returns:
            ``x1, y1, z1, x2, y2, z2`` in pixels and slices, half-open, shape (T, 6), float64.
        """
        if not len(self):
            return np.empty((0, 6))
        starts = self.offsets[:-1]
        low = np.minimum.reduceat(self.boxes[:, :2], starts)
        high = np.maximum.reduceat(self.boxes[:, 2:], starts)
        first = np.minimum.reduceat(self.slices, starts)
        last = np.maximum.reduceat(self.slices, starts)
        return np.column_stack((low, first, high, last + 1)).astype(np.float64)

    def select(self, tracklets: ArrayLike) -> Tracklets:
        """Return some tracklets in ascending order of their indices.

        Args:
            tracklets: Indices of the tracklets, shape (K,), without repetition.
        """
        rows = np.isin(self.ids, tracklets)
        lengths = self.lengths[np.sort(np.asarray(tracklets, dtype=np.int64))]
        return Tracklets(
            self.boxes[rows],
            self.scores[rows],
            self.slices[rows],
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        )

    def to_published(self, geometry: Geometry, published: Geometry) -> Tracklets:
        """Map tracklets from resampled to published slices.

        A tracklet on the slices ``first ... last`` covers the slab ``[first - 0.5, last + 0.5)``.
        Each published slice with its center in the slab gets a box and a score, interpolated
        linearly between the neighboring slices (also across gaps) and constant at the ends. If
        the slab contains no center, the published slice nearest to its middle gets them. The
        published slice nearest to the highest score gets this score, so that confidences do not
        change.

        Args:
            geometry: Geometry of the volume of the tracklets.
            published: Geometry of the published volume.

        Returns:
            The tracklets in the same order on published slices, with 1-based inclusive boxes in
            published pixels.

        Raises:
            ValueError: The slices of a tracklet are not strictly ascending.
        """
        if not len(self):
            return self
        ascends = np.diff(self.slices) > 0
        ascends[self.offsets[1:-1] - 1] = True
        if not ascends.all():
            raise ValueError("slices of a tracklet are unsorted; expected strictly ascending ones")
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
        """Find the rows before and after slice positions in tracklets, and the latter's weight."""
        # One sorted key for all tracklets, with an offset between them.
        origin = self.slices.min()
        stride = float(self.slices.max() - origin + 1)
        keys = self.ids * stride + (self.slices - origin)
        below = np.searchsorted(keys, ids * stride + (position - origin), side="right") - 1
        below = np.clip(below, self.offsets[ids], self.offsets[ids + 1] - 1)
        above = np.minimum(below + 1, self.offsets[ids + 1] - 1)
        gap = np.maximum(self.slices[above] - self.slices[below], 1)
        weight = np.clip((position - self.slices[below]) / gap, 0, 1)
        return below, above, weight


def is_whole_number(z: Any) -> bool:
    """Return whether a slice index of a file is a whole number; some tools write floats."""
    if type(z) is int:
        return True
    return isinstance(z, Real) and not isinstance(z, bool) and float(z).is_integer()


def _mix(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
    # The result is exact at both ends and between equal values.
    return np.where(weight < 1, below + (above - below) * weight, above)


def _first_per_group(chosen: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Find the first True row of each group of rows; each group has one."""
    rows = np.flatnonzero(chosen)
    return rows[np.searchsorted(rows, offsets[:-1])]
