"""Annotation files of scans with nodules, in mmengine's ``data_list`` format.

Boxes are in voxels of the store, continuous and half-open; centers and diameters in world mm.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import InputError
from ..structures import Geometry
from .json_schema import read_schema, read_validated_json

__all__ = ["data_list_file", "read_data_list", "scan_entry"]

_HINT = "write it with a converter of tools/dataset_converters, or by hand as in docs/data.md"


def read_data_list(path: str | os.PathLike) -> dict[str, Any]:
    """Read a list of scans, in which ``data_list.schema.json`` describes every key.

    Args:
        path: The JSON file.

    Returns:
        ``metainfo`` and ``data_list`` of the file.

    Raises:
        InputError: The file is missing or invalid; the message names file, entry and key.
    """
    content = read_validated_json(path, read_schema("data_list"), _HINT)
    for i, entry in enumerate(content["data_list"]):
        for j, instance in enumerate(entry["instances"]):
            box = instance["bbox_3d"]
            if any(low >= high for low, high in zip(box[:3], box[3:], strict=True)):
                raise InputError(
                    f"{path}: data_list[{i}].instances[{j}] has the bbox_3d {box}; expected x1, "
                    "y1, z1, x2, y2, z2 with a positive size"
                )
    return {"metainfo": content["metainfo"], "data_list": content["data_list"]}


def scan_entry(
    name: str,
    series_uid: str,
    geometry: Geometry,
    nodules: Sequence[Sequence[float]],
    excluded: Sequence[Sequence[float]],
    subset: int | None,
) -> dict[str, Any]:
    """Return the entry of a scan.

    Args:
        name: Name of the volume in the store.
        series_uid: Series UID, which submissions refer to.
        geometry: Geometry of the volume.
        nodules: Rows ``x, y, z, diameter`` in world mm.
        excluded: Rows of irrelevant findings in the same format, with a diameter of -1 if it is
            unknown.
        subset: Official subset, or None.

    Returns:
        ``volume``, ``series_uid``, ``geometry``, ``subset``, ``instances`` (``bbox_3d``: cube in
        voxels of the store, ``bbox_label``, ``center_world``, ``diameter_mm``) and ``excluded``.
    """
    spheres = np.array(nodules, dtype=np.float64).reshape(-1, 4)
    boxes = geometry.boxes_around_spheres(spheres)
    return {
        "volume": name,
        "series_uid": series_uid,
        "geometry": geometry.to_dict(),
        "subset": subset,
        "instances": [
            {
                "bbox_3d": box.tolist(),
                "bbox_label": 0,
                "center_world": sphere[:3].tolist(),
                "diameter_mm": float(sphere[3]),
            }
            for sphere, box in zip(spheres, boxes)
        ],
        "excluded": [[float(value) for value in row] for row in excluded],
    }


def data_list_file(
    description: str, spacing: Sequence[float], entries: Iterable[dict[str, Any]], labeled: bool
) -> dict[str, Any]:
    """Return the content of an annotation file.

    Args:
        description: Description of the list. It is not part of ``metainfo``, which must be equal
            in lists that are used together for training.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        entries: Entries of scans (:func:`scan_entry`).
        labeled: Whether the ground truth is used in training. Otherwise it is omitted, so that it
            cannot be used by mistake.
    """
    hidden: dict[str, list] = {} if labeled else {"instances": [], "excluded": []}
    return {
        "info": {"description": description, "coordinates": "store voxels, half-open edges"},
        "metainfo": {"classes": ["lesion"], "spacing": list(spacing)},
        "data_list": [{**entry, "labeled": labeled, **hidden} for entry in entries],
    }
