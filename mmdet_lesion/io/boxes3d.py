"""3D boxes of sub-volumes: DeepLesion's manual 1K set, and detections to evaluate on it.

The set is ``{'val': {volume: boxes}, 'test': {volume: boxes}}`` with rows
``x1, y1, z1, x2, y2, z2`` in published coordinates, z counted in the whole series; detections are
``{volume: boxes}`` with the score as seventh number. Source: Yan et al., "Learning from multiple
datasets with heterogeneous and partial labels for universal lesion detection in CT", TMI 2020.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import InputError
from .atomic import read_json
from .safe_pickle import load_pickle

__all__ = ["read_boxes3d_detections", "read_boxes3d_truth"]

_SPLITS = ("val", "test")


def read_boxes3d_truth(path: str | os.PathLike, split: str = "test") -> dict[str, np.ndarray]:
    """Read lesion boxes.

    Args:
        path: The manual 1K set, or ``{volume: boxes}`` as a pickle or JSON.
        split: ``'val'`` or ``'test'`` of the manual 1K set; a file without splits is read whole.

    Returns:
        ``{volume: (n, 6)}`` in the file's order; volumes without a lesion are kept.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no such file; the message names the volume.
    """
    content = _read(path)
    if content and set(content) <= set(_SPLITS):
        if split not in content:
            raise InputError(f"{path} has no split {split!r}; expected one of {', '.join(content)}")
        content = content[split]
        if not isinstance(content, dict):
            raise InputError(f"{path}, {split} is no dict of sub-volumes")
    boxes = {name: _boxes(rows, 6, f"{path}, {name}") for name, rows in content.items()}
    for name, rows in boxes.items():
        if (rows[:, 3:] < rows[:, :3]).any():
            raise InputError(
                f"{path}, {name} has a box that ends before it begins; expected the columns "
                "x1, y1, z1, x2, y2, z2"
            )
    return boxes


def read_boxes3d_detections(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read detected boxes.

    Args:
        path: ``{volume: boxes}`` as a pickle or JSON.

    Returns:
        ``{volume: (n, 7)}`` rows ``x1, y1, z1, x2, y2, z2, score`` in the file's precision.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no such file; the message names the volume.
    """
    return {name: _boxes(rows, 7, f"{path}, {name}") for name, rows in _read(path).items()}


def _read(path: str | os.PathLike) -> dict[str, Any]:
    content = read_json(path) if os.fspath(path).endswith(".json") else load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a dict of sub-volumes")
    return content


def _boxes(rows: Any, width: int, where: str) -> np.ndarray:
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(1, dtype=object)
    if array.size == 0:
        return np.empty((0, width))
    if array.ndim != 2 or array.shape[1] != width or array.dtype.kind not in "fiu":
        raise InputError(
            f"{where} holds an array of shape {array.shape}; expected rows of {width} numbers"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{where} holds NaN or infinity; expected finite boxes")
    return array
