"""Reading of pickle and JSON files with boxes by sub-volume."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from ..errors import InputError
from .atomic import read_json
from .safe_pickle import load_pickle

__all__ = ["check_ends", "parse_boxes", "read_volume_dict"]


def read_volume_dict(path: str | os.PathLike) -> dict[Any, Any]:
    """Read a dict of sub-volumes from a pickle or JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file cannot be read, or does not contain a dict.
    """
    content = read_json(path) if os.fspath(path).endswith(".json") else load_pickle(path)
    if not isinstance(content, dict):
        raise InputError(
            f"{path} contains a {type(content).__name__}; expected a dict of sub-volumes"
        )
    return content


def parse_boxes(rows: Any, widths: tuple[int, ...], where: str) -> np.ndarray:
    """Convert rows of numbers to an array.

    Args:
        rows: The rows.
        widths: Allowed lengths of a row.
        where: File and entry, for messages.

    Returns:
        Array of the common precision, shape (N, one of ``widths``).

    Raises:
        InputError: The rows have another length, a value is not a finite number, or a box ends
            before it begins.
    """
    try:
        array = np.asarray(rows)
    except ValueError:
        array = np.empty(1, dtype=object)
    if array.size == 0:
        return np.empty((0, widths[0]))
    if array.ndim != 2 or array.shape[1] not in widths or array.dtype.kind not in "fiu":
        raise InputError(
            f"{where} has an array of shape {array.shape} and type {array.dtype}; expected rows "
            f"of {' or '.join(map(str, widths))} numbers"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{where} contains NaN or infinity; expected finite numbers")
    check_ends(array, 2 if widths[0] < 6 else 3, where)
    return array


def check_ends(boxes: np.ndarray, axes: int, where: str) -> None:
    """Check that inclusive boxes do not end before they begin.

    Args:
        boxes: Rows that start with the first and the last pixel along 2 or 3 axes.
        axes: Number of axes.
        where: File and entry, for messages.

    Raises:
        InputError: A box is inverted. Boxes narrower than a pixel are valid.
    """
    inverted = (boxes[:, axes : 2 * axes] - boxes[:, :axes] < -1).any(axis=1)
    if inverted.any():
        found = boxes[int(inverted.argmax()), : 2 * axes].tolist()
        raise InputError(
            f"{where} has the box {found}, which ends before it begins; expected the smaller "
            "coordinates first"
        )
