"""Reading and writing of Lesion Harvester's files: complete ground truth, and detections.

Ground truth is ``{volume[.annot]: {z: [[x1, y1, x2, y2, z, z], …]}}``, detections are
``{volume: [[(z, [x1, y1, x2, y2, score]), …], …]}``; z is zero-based within the sub-volume, x and
y are published coordinates (see :mod:`mmdet_lesion.structures.geometry`). Source: Cai et al.,
"Lesion Harvester: iteratively mining unlabeled lesions and hard-negative examples at scale", TMI
2020.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..structures.tracklets import Tracklets, is_whole_number
from .atomic import atomic_write
from .box_files import check_ends, parse_boxes, read_volume_dict

__all__ = [
    "GroundTruth",
    "read_detections",
    "read_ground_truth",
    "write_detections",
    "write_ground_truth",
]

GroundTruth = dict[str, dict[int, np.ndarray]]

_SUFFIX = ".annot"
# Readable by Python 2, which the published evaluators need.
_PROTOCOL = 2


def _volumes(path: str | os.PathLike, kind: type) -> Iterator[tuple[str, Any]]:
    """Yield the checked entries of a file ``{name: kind}``, names without ``.annot``."""
    seen = set()
    for key, value in read_volume_dict(path).items():
        if not isinstance(key, str):
            raise InputError(f"{path} has the key {key!r}; expected the name of a sub-volume")
        name = key.removesuffix(_SUFFIX)
        if name in seen:
            raise InputError(
                f"{path} contains {name} twice, with and without {_SUFFIX}; expected it once"
            )
        seen.add(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{path}, {name} is a {type(value).__name__}; expected a {kind.__name__}"
            )
        yield name, value


def read_ground_truth(path: str | os.PathLike) -> GroundTruth:
    """Read ground-truth boxes (``Revised-*.pkl``, ``RECIST-Box-*.pkl``).

    Args:
        path: The pickle, or the same containers as JSON (``.json``).

    Returns:
        Published boxes by sub-volume, without ``.annot``, and slice, shape (N, 4), float64, in the
        file's order. Sub-volumes without a lesion have an empty dict.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The content is invalid; the message names the sub-volume and slice.
    """
    truth: GroundTruth = {}
    for name, slices in _volumes(path, dict):
        truth[name] = {}
        for z, boxes in slices.items():
            where = f"{path}, {name}, slice {z}"
            # The fifth and sixth columns repeat z.
            if not is_whole_number(z):
                raise InputError(f"{where}: the slice is {z!r}; expected a whole number")
            rows = parse_boxes(boxes, (4, 6), where)
            truth[name][int(z)] = rows[:, :4].astype(np.float64)
    return truth


def read_detections(path: str | os.PathLike) -> dict[str, Tracklets]:
    """Read tracklets in Lesion Harvester's format.

    Args:
        path: The pickle, or the same containers as JSON (``.json``).

    Returns:
        Tracklets by sub-volume. The file's order and precision are kept, since published metrics
        depend on them.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The content is invalid; the message names the sub-volume and tracklet.
    """
    detections = {}
    for name, tracklets in _volumes(path, list):
        try:
            detections[name] = Tracklets.from_harvester(tracklets)
        except ValueError as error:
            raise InputError(f"{path}, {name}, {error}") from None
        check_ends(detections[name].boxes, 2, f"{path}, {name}")
    return detections


def _write(path: str | os.PathLike, content: dict) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=_PROTOCOL)


def write_ground_truth(
    path: str | os.PathLike, truth: Mapping[str, Mapping[int, Sequence]]
) -> None:
    """Write ground-truth boxes in the format of the published evaluators.

    Args:
        path: The pickle.
        truth: Published boxes by sub-volume and slice, shape (N, 4).
    """
    content = {}
    for name, slices in truth.items():
        content[name + _SUFFIX] = {
            int(z): [[*map(float, box[:4]), float(z), float(z)] for box in boxes]
            for z, boxes in slices.items()
        }
    _write(path, content)


def write_detections(path: str | os.PathLike, detections: Mapping[str, Tracklets]) -> None:
    """Write tracklets in Lesion Harvester's format.

    Args:
        path: The pickle.
        detections: Tracklets by sub-volume in published coordinates.
    """
    _write(path, {name: tracklets.to_harvester() for name, tracklets in detections.items()})
