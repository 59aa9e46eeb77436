"""Reading and checking lists of scans in mmengine's ``data_list`` format."""

from __future__ import annotations

import os
from typing import Any

from ..errors import InputError
from .atomic import read_json

__all__ = ["read_data_list"]

_HOW_TO_CONVERT = "write it with tools/dataset_converters/luna16.py RAW --out DATA_ROOT"
_KEYS = ("volume", "series_uid", "labeled", "geometry", "instances")
_GEOMETRY_KEYS = ("shape", "spacing", "origin", "direction")
_INSTANCE_KEYS = ("bbox_3d", "bbox_label", "center_world", "diameter_mm")


def _check_keys(where: str, row: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(row, dict):
        raise InputError(f"{where} is {row!r}; expected an object")
    for key in keys:
        if key not in row:
            raise InputError(f"{where} has no key '{key}'; expected the keys {', '.join(keys)}")


def read_data_list(path: str | os.PathLike) -> dict[str, Any]:
    """Read a list of scans and check it.

    Args:
        path: The JSON file.

    Returns:
        Its ``metainfo`` and ``data_list``.

    Raises:
        InputError: The file is missing, is no JSON, names no scan, or an entry is incomplete. The
            message names file, entry and key.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} is not there; {_HOW_TO_CONVERT}")
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("data_list"), list):
        raise InputError(f"{path} has no list 'data_list'; {_HOW_TO_CONVERT}")
    metainfo = content.get("metainfo", {})
    _check_keys(f"{path}: metainfo", metainfo, ("classes",))
    if not content["data_list"]:
        raise InputError(f"{path}: 'data_list' is empty; expected one scan or more")
    for i, entry in enumerate(content["data_list"]):
        where = f"{path}: data_list[{i}]"
        _check_keys(where, entry, _KEYS)
        _check_keys(f"{where}.geometry", entry["geometry"], _GEOMETRY_KEYS)
        for j, instance in enumerate(entry["instances"]):
            _check_keys(f"{where}.instances[{j}]", instance, _INSTANCE_KEYS)
            box = instance["bbox_3d"]
            if len(box) != 6 or any(low >= high for low, high in zip(box[:3], box[3:])):
                raise InputError(
                    f"{where}.instances[{j}] has the bbox_3d {box}; expected x1, y1, z1, x2, y2, "
                    "z2 with a positive size"
                )
    return {"metainfo": metainfo, "data_list": content["data_list"]}
