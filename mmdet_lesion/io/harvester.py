"""Lesion Harvester's files: complete lesion boxes of sub-volumes, and detections.

Ground truth is ``{volume[.annot]: {z: [[x1, y1, x2, y2, z, z], …]}}``, detections are
``{volume: [[(z, [x1, y1, x2, y2, score]), …], …]}``; z counts from zero within the sub-volume, x
and y are published coordinates (see :mod:`mmdet_lesion.structures.geometry`). Source: Cai et al.,
"Lesion Harvester: iteratively mining unlabeled lesions and hard-negative examples at scale", TMI
2020.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np

from ..errors import InputError
from ..structures.tracklets import Tracklets
from .atomic import atomic_write, read_json
from .safe_pickle import load_pickle

__all__ = [
    "GroundTruth",
    "read_detections",
    "read_ground_truth",
    "write_detections",
    "write_ground_truth",
]

GroundTruth = dict[str, dict[int, np.ndarray]]

_SUFFIX = ".annot"
# What Python 2, in which the published evaluators run, and every later Python read.
_PROTOCOL = 2


def _slice_index(z: Any, where: str) -> int:
    # Some tools write slices as floats; only whole numbers are slices.
    whole = isinstance(z, Integral) and not isinstance(z, bool)
    if not whole and not (isinstance(z, float | np.floating) and float(z).is_integer()):
        raise InputError(f"{where} has the slice {z!r}; expected a whole number")
    return int(z)


def _boxes(values: Any, columns: tuple[int, ...], where: str) -> np.ndarray:
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{where} does not hold boxes; expected rows of numbers") from None
    if array.size == 0:
        return np.empty((0, columns[0]), dtype=np.float64)
    if array.ndim != 2 or array.shape[1] not in columns:
        raise InputError(
            f"{where} holds an array of shape {array.shape}; expected boxes of "
            f"{' or '.join(map(str, columns))} numbers"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{where} holds NaN or infinity; expected finite boxes")
    return array


def _volumes(path: str | os.PathLike, kind: type) -> Iterator[tuple[str, Any]]:
    """The entries of a file ``{name: kind}``, checked, names without ``.annot``."""
    content = read_json(path) if os.fspath(path).endswith(".json") else load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a dict of sub-volumes")
    seen = set()
    for key, value in content.items():
        if not isinstance(key, str):
            raise InputError(f"{path} has the key {key!r}; expected the name of a sub-volume")
        name = key.removesuffix(_SUFFIX)
        if name in seen:
            raise InputError(f"{path} holds {name} twice, with and without {_SUFFIX}")
        seen.add(name)
        if not isinstance(value, kind):
            raise InputError(
                f"{path}, {name} holds a {type(value).__name__}; expected a {kind.__name__}"
            )
        yield name, value


def read_ground_truth(path: str | os.PathLike) -> GroundTruth:
    """Read complete lesion boxes (``Revised-*.pkl``, ``RECIST-Box-*.pkl``).

    Args:
        path: The pickle.

    Returns:
        ``{volume: {z: (n, 4) float64 published boxes}}`` in the file's order, names without
        ``.annot``; sub-volumes without a lesion are kept with an empty dict.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no such pickle; the message names the sub-volume and slice.
    """
    truth: GroundTruth = {}
    for name, slices in _volumes(path, dict):
        truth[name] = {}
        for z, boxes in slices.items():
            where = f"{path}, {name}, slice {z}"
            # The fifth and sixth columns repeat z.
            truth[name][_slice_index(z, where)] = _boxes(boxes, (4, 6), where)[:, :4].copy()
    return truth


def read_detections(path: str | os.PathLike) -> dict[str, Tracklets]:
    """Read tracklets in Lesion Harvester's format.

    Args:
        path: The pickle, or the same containers as JSON (``.json``).

    Returns:
        ``{volume: tracklets}`` in the file's order. Rows keep the file's order and precision, on
        which published figures depend.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file has another content; the message names the sub-volume and tracklet.
    """
    detections = {}
    for name, tracklets in _volumes(path, list):
        try:
            detections[name] = Tracklets.from_harvester(tracklets)
        except ValueError as error:
            raise InputError(f"{path}, {name}, {error}") from None
    return detections


def _write(path: str | os.PathLike, content: dict) -> None:
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        pickle.dump(content, file, protocol=_PROTOCOL)


def write_ground_truth(
    path: str | os.PathLike, truth: Mapping[str, Mapping[int, Sequence]]
) -> None:
    """Write complete lesion boxes so that the published evaluators read them.

    Args:
        path: The pickle to write.
        truth: ``{volume: {z: (n, 4) published boxes}}``.
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
        path: The pickle to write.
        detections: ``{volume: tracklets}`` in published coordinates.
    """
    _write(path, {name: tracklets.to_harvester() for name, tracklets in detections.items()})
