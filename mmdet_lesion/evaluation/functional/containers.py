"""Lesion Harvester's nested containers as flat arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["Lesions", "TrackletBoxes", "flatten_lesions", "flatten_tracklets", "number_scans"]

Tracklet = Sequence[tuple[int, Sequence[float]]]
Truth = Mapping[int, Sequence[Sequence[float]]]


class Lesions(NamedTuple):
    """Scan ``(L,)``, slice ``(L,)`` and box ``(L, 4)`` of every lesion."""

    scans: np.ndarray
    slices: np.ndarray
    boxes: np.ndarray


class TrackletBoxes(NamedTuple):
    """Tracklets, and those of their boxes that lie on a slice with a lesion.

    Args:
        scans: ``(T,)`` scan of each tracklet.
        confidences: ``(T,)`` largest score of each tracklet, in the precision of its rows.
        owners: ``(M,)`` tracklet of each box, ascending; a tracklet's boxes keep their order.
        slices: ``(M,)`` slice of each box.
        boxes: ``(M, 4)``.
    """

    scans: np.ndarray
    confidences: np.ndarray
    owners: np.ndarray
    slices: np.ndarray
    boxes: np.ndarray


def number_scans(ground_truth: Mapping[str, Truth]) -> dict[str, int]:
    """Number the volumes in the order of the ground truth, names without ``.annot``.

    Raises:
        ValueError: A name comes with and without ``.annot``.
    """
    names: dict[str, int] = {}
    for key in ground_truth:
        name = key.removesuffix(".annot")
        if name in names:
            raise ValueError(f"ground truth holds {name!r} twice, with and without .annot")
        names[name] = len(names)
    return names


def flatten_lesions(ground_truth: Mapping[str, Truth]) -> Lesions:
    """All lesions of ``{volume: {z: [[x1, y1, x2, y2, ...], ...]}}``.

    Raises:
        ValueError: A slice is no whole number, a row has fewer than four numbers or is not finite.
    """
    keys = list(ground_truth)
    scans: list[int] = []
    slices: list[int] = []
    rows: list[Sequence[float]] = []
    for scan, (key, by_slice) in enumerate(ground_truth.items()):
        # Published files hold an empty list, not an empty dict, for a volume without a lesion.
        for z, found in by_slice.items() if len(by_slice) else ():
            if z != int(z):
                raise ValueError(
                    f"ground truth of {key!r} has the slice {z!r}; expected a whole number"
                )
            scans += [scan] * len(found)
            slices += [int(z)] * len(found)
            rows += [row[:4] for row in found]
    boxes = _numbers(rows, 4, lambda i: f"ground truth of {keys[scans[i]]!r}, slice {slices[i]}")
    return Lesions(
        np.array(scans, dtype=np.int64), np.array(slices, dtype=np.int64), boxes.astype(np.float64)
    )


def flatten_tracklets(
    detections: Mapping[str, Sequence[Tracklet]], names: Mapping[str, int], lesions: Lesions
) -> TrackletBoxes:
    """Confidences of all tracklets, and their boxes on the slices that hold a lesion.

    Reading the nested containers is nearly the whole cost of a large evaluation. It goes over one
    volume at a time, so that its objects are still in the processor's cache on the next pass.

    Args:
        detections: ``{volume: [[(z, [x1, y1, x2, y2, score]), ...], ...]}``.
        names: Number of each volume.
        lesions: Lesions of these volumes.

    Raises:
        ValueError: A volume with detections has no number, a tracklet has no box or other entries
            than pairs, a box that is read is not five finite numbers.
    """
    unknown = [name for name, found in detections.items() if len(found) and name not in names]
    if unknown:
        raise ValueError(
            f"detections hold {len(unknown)} volume(s) that the ground truth lacks, "
            f"first {unknown[0]!r}"
        )
    lesion_slices = _slices_per_scan(lesions, len(names))
    scans: list[int] = []
    parts: list[tuple[np.ndarray, ...]] = []
    for name, found in detections.items():
        if not len(found):
            continue
        scan = names[name]
        lengths = np.fromiter(map(len, found), np.int64, len(found))
        if not lengths.all():
            raise ValueError(
                f"detections of {name!r}, tracklet {np.argmin(lengths)} has no box; "
                "expected one or more"
            )
        wanted = lesion_slices[scan]
        try:
            near = [
                (owner, z, row)
                for owner, tracklet in enumerate(found, start=len(scans))
                for z, row in tracklet
                if z in wanted
            ]
        except (TypeError, ValueError):
            raise ValueError(
                f"detections of {name!r} hold something else than tracklets of "
                "(z, [x1, y1, x2, y2, score])"
            ) from None
        owners, slices, rows = zip(*near, strict=True) if near else ((), (), ())
        boxes = _numbers(rows, 5, lambda i, name=name: f"detections of {name!r}")[:, :4]
        confidences = np.maximum.reduceat(_scores(found, name), np.cumsum(lengths) - lengths)
        parts.append((confidences, np.array(owners, np.int64), np.array(slices, np.int64), boxes))
        scans += [scan] * len(found)
    if not parts:
        none = np.empty(0, np.int64)
        return TrackletBoxes(none, np.empty(0), none, none, np.empty((0, 4)))
    merged = (np.concatenate(part) for part in zip(*parts, strict=True))
    return TrackletBoxes(np.array(scans, dtype=np.int64), *merged)


def _slices_per_scan(lesions: Lesions, num_scans: int) -> list[set[int]]:
    slices: list[set[int]] = [set() for _ in range(num_scans)]
    for scan, z in zip(lesions.scans.tolist(), lesions.slices.tolist(), strict=True):
        slices[scan].add(z)
    return slices


def _scores(found: Sequence[Tracklet], name: str) -> np.ndarray:
    """The fifth number of each row in the rows' common precision."""
    try:
        scores = _plain_scores(found)
    except (AttributeError, IndexError, TypeError, ValueError):
        scores = None
    if scores is None or not np.isfinite(scores).all():
        # Any other mixture of numbers; and here the row that is wrong is found and named.
        rows = [row for tracklet in found for _, row in tracklet]
        scores = _numbers(rows, 5, lambda i: f"detections of {name!r}, box {i}")[:, 4]
    return scores


def _plain_scores(found: Sequence[Tracklet]) -> np.ndarray | None:
    """Scores of rows of one kind: lists of Python floats, or arrays of one precision."""
    first = found[0][0][1]
    if isinstance(first, np.ndarray):
        # Python floats are read several times as fast as numpy's scalars.
        scores = [row.item(4) for tracklet in found for _, row in tracklet]
    elif isinstance(first[4], float):
        scores = [row[4] for tracklet in found for _, row in tracklet]
    else:
        return None
    wide = np.fromiter(scores, np.float64, len(scores))
    narrow = wide.astype(getattr(first, "dtype", np.float64), copy=False)
    return narrow if np.array_equal(narrow, wide) else None


def _numbers(rows: Sequence[ArrayLike], width: int, where: Callable[[int], str]) -> np.ndarray:
    """Rows of numbers as one array in their common precision, or a sentence on what is wrong."""
    if not rows:
        # float16 gives way to whatever precision the other parts have.
        return np.empty((0, width), dtype=np.float16)
    try:
        array = np.array(rows)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "fiu":
        lengths = (len(row) if hasattr(row, "__len__") else -1 for row in rows)
        bad = next((i for i, length in enumerate(lengths) if length != width), 0)
        raise ValueError(f"{where(bad)} holds the row {rows[bad]!r}; expected {width} numbers")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise ValueError(
            f"{where(bad)} holds the row {array[bad].tolist()}; expected finite numbers"
        )
    return array
