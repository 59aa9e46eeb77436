"""Reading of 3D boxes by sub-volume: DeepLesion's manual 1K set, and detections.

The set is ``{'val': {volume: boxes}, 'test': {volume: boxes}}`` with rows
``x1, y1, z1, x2, y2, z2`` in published coordinates, z counted in the entire series. Detections are
``{volume: boxes}`` with the score as the seventh number. Source: Yan et al., "Learning from
multiple datasets with heterogeneous and partial labels for universal lesion detection in CT", TMI
2020.
"""

from __future__ import annotations

import os

import numpy as np

from ..errors import InputError
from .box_files import parse_boxes, read_volume_dict

__all__ = ["read_boxes3d_detections", "read_boxes3d_truth"]

_SPLITS = ("val", "test")


def read_boxes3d_truth(path: str | os.PathLike, split: str = "test") -> dict[str, np.ndarray]:
    """Read ground-truth boxes.

    Args:
        path: The manual 1K set, or ``{volume: boxes}`` as a pickle or JSON.
        split: ``'val'`` or ``'test'`` of the manual 1K set. It is ignored for a file without
            splits.

    Returns:
        Boxes of each volume in the file's order, shape (N, 6); volumes without a lesion are
        included.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The content is invalid; the message names the volume.
    """
    content = read_volume_dict(path)
    if content and set(content) <= set(_SPLITS):
        if split not in content:
            raise InputError(f"{path} has no split {split!r}; expected one of {', '.join(content)}")
        content = content[split]
        if not isinstance(content, dict):
            raise InputError(
                f"{path}, {split} is a {type(content).__name__}; expected a dict of sub-volumes"
            )
    return {name: parse_boxes(rows, (6,), f"{path}, {name}") for name, rows in content.items()}


def read_boxes3d_detections(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Read detections.

    Args:
        path: ``{volume: boxes}`` as a pickle or JSON.

    Returns:
        Rows ``x1, y1, z1, x2, y2, z2, score`` of each volume in the file's precision, shape
        (N, 7).

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The content is invalid; the message names the volume.
    """
    content = read_volume_dict(path)
    return {name: parse_boxes(rows, (7,), f"{path}, {name}") for name, rows in content.items()}
