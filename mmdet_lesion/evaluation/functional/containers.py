"""Flat arrays of the lesions and tracklets of all volumes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from ...structures import Tracklets

__all__ = [
    "Lesions",
    "TrackletBoxes",
    "flatten_ids",
    "flatten_lesions",
    "flatten_tracklets",
    "number_scans",
]

GroundTruth = Mapping[int, Sequence[Sequence[float]]]


class Lesions(NamedTuple):
    """The L ground-truth boxes of all volumes.

    Args:
        scans: Number of each box's scan, shape (L,).
        slices: Slice of each box, shape (L,).
        boxes: Boxes xyxy, shape (L, 4).
    """

    scans: np.ndarray
    slices: np.ndarray
    boxes: np.ndarray


class TrackletBoxes(NamedTuple):
    """The T tracklets of all volumes, with M boxes.

    Args:
        scans: Number of each tracklet's scan, shape (T,).
        confidences: Largest score of each tracklet, shape (T,).
        owners: Tracklet of each box, ascending, shape (M,). A tracklet's boxes keep their order.
        slices: Slice of each box, shape (M,).
        boxes: Boxes xyxy, shape (M, 4).
    """

    scans: np.ndarray
    confidences: np.ndarray
    owners: np.ndarray
    slices: np.ndarray
    boxes: np.ndarray


def number_scans(ground_truth: Mapping[str, GroundTruth]) -> dict[str, int]:
    """Number the volumes in the order of the ground truth, without ``.annot`` in their names.

    Raises:
        ValueError: There is a name with and without ``.annot``.
    """
    names: dict[str, int] = {}
    for key in ground_truth:
        name = key.removesuffix(".annot")
        if name in names:
            raise ValueError(
                f"the ground truth contains {name!r} with and without .annot; expected it once"
            )
        names[name] = len(names)
    return names


def flatten_lesions(ground_truth: Mapping[str, GroundTruth]) -> Lesions:
    """Collect all lesions of ``{volume: {z: [[x1, y1, x2, y2, ...], ...]}}``.

    Raises:
        ValueError: A slice is not an integer, or a row has fewer than four numbers or values that
            are not finite.
    """
    keys = list(ground_truth)
    scans: list[int] = []
    slices: list[int] = []
    rows: list[Sequence[float]] = []
    for scan, (key, by_slice) in enumerate(ground_truth.items()):
        # Published files contain an empty list, not an empty dict, for a volume without a lesion.
        for z, found in by_slice.items() if len(by_slice) else ():
            if z != int(z):
                raise ValueError(
                    f"ground truth of {key!r} has the slice {z!r}; expected an integer"
                )
            scans += [scan] * len(found)
            slices += [int(z)] * len(found)
            rows += [row[:4] for row in found]
    boxes = _numbers(rows, 4, lambda i: f"ground truth of {keys[scans[i]]!r}, slice {slices[i]}")
    return Lesions(
        np.array(scans, dtype=np.int64), np.array(slices, dtype=np.int64), boxes.astype(np.float64)
    )


def flatten_ids(
    ground_truth: Mapping[str, GroundTruth],
    lesion_ids: Mapping[str, Mapping[int, Sequence[Hashable | None]]],
) -> list[Hashable | None]:
    """Collect the lesions of all boxes in the order of :func:`flatten_lesions`.

    Args:
        ground_truth: Boxes by volume and slice.
        lesion_ids: Ids of the boxes, unique within a volume, in the same structure.

    Returns:
        An id of each box that is unique among all volumes, or None.

    Raises:
        ValueError: The number of ids of a slice is not that of its boxes.
    """
    flat: list[Hashable | None] = []
    for key, by_slice in ground_truth.items():
        ids_of = lesion_ids.get(key, {})
        for z, found in by_slice.items() if len(by_slice) else ():
            ids = ids_of.get(z, [None] * len(found))
            if len(ids) != len(found):
                raise ValueError(
                    f"slice {z!r} of {key!r} has {len(ids)} lesion ids and {len(found)} boxes; "
                    "expected one id for each box"
                )
            flat += [None if name is None else (key, name) for name in ids]
    return flat


def flatten_tracklets(
    detections: Mapping[str, Tracklets], names: Mapping[str, int]
) -> TrackletBoxes:
    """Concatenate the tracklets of all volumes.

    Args:
        detections: Tracklets by volume.
        names: Number of each volume.

    Raises:
        ValueError: A volume with detections has no number, or its detections are not tracklets of
            finite boxes.
    """
    unknown = [name for name, found in detections.items() if len(found) and name not in names]
    if unknown:
        raise ValueError(
            f"detections contain {len(unknown)} volume(s) that the ground truth lacks, first "
            f"{unknown[0]!r}; expected only volumes of the ground truth"
        )
    parts = {name: found for name, found in detections.items() if len(found)}
    for name, found in parts.items():
        if not hasattr(found, "offsets"):
            raise ValueError(
                f"detections of {name!r} are a {type(found).__name__}; expected Tracklets, as "
                "read_detections and Tracklets.from_harvester return them"
            )
        if not (np.isfinite(found.boxes).all() and np.isfinite(found.scores).all()):
            raise ValueError(
                f"detections of {name!r} contain NaN or infinity; expected finite boxes"
            )
    if not parts:
        none = np.empty(0, np.int64)
        return TrackletBoxes(none, np.empty(0), none, none, np.empty((0, 4)))
    each = list(parts.values())
    scans = np.repeat([names[name] for name in parts], [len(found) for found in each])
    lengths = np.concatenate([np.diff(found.offsets) for found in each])
    return TrackletBoxes(
        scans,
        np.concatenate([found.confidence() for found in each]),
        np.repeat(np.arange(len(scans)), lengths),
        np.concatenate([found.slices for found in each]).astype(np.int64),
        np.concatenate([found.boxes for found in each]),
    )


def _numbers(
    rows: Sequence[Sequence[float]], width: int, where: Callable[[int], str]
) -> np.ndarray:
    """Convert rows of numbers to an array (N, width) in their common precision."""
    if not rows:
        return np.empty((0, width))
    try:
        array = np.array(rows)
    except ValueError:
        array = np.empty(0, dtype=object)
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "fiu":
        lengths = (len(row) if hasattr(row, "__len__") else -1 for row in rows)
        bad = next((i for i, length in enumerate(lengths) if length != width), 0)
        raise ValueError(f"{where(bad)} has the row {rows[bad]!r}; expected {width} numbers")
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array).all(axis=1)))
        raise ValueError(f"{where(bad)} has the row {array[bad].tolist()}; expected finite numbers")
    return array
