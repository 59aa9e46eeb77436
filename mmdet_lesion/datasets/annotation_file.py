"""Reading and checking the converted annotation files: COCO's form plus a table of volumes."""

from __future__ import annotations

import os
from typing import Any

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.atomic import read_json

__all__ = ["LESION_SOURCES", "SOURCES", "read_annotation_file"]

# Where a box comes from. A hard negative is a confident detection that hit no lesion.
LESION_SOURCES = ("recist", "full", "mined")
SOURCES = (*LESION_SOURCES, "hard_negative")

_HOW_TO_CONVERT = "write it with tools/dataset_converters/deeplesion.py RAW --out DATA_ROOT"

_KEYS = {
    "slice": {
        "categories": ("id", "name"),
        "images": ("id", "file_name", "volume", "slice_index", "height", "width", "spacing"),
        "annotations": ("id", "image_id", "category_id", "bbox", "source"),
    },
}
_KEYS["volume"] = {
    **_KEYS["slice"],
    "annotations": (*_KEYS["slice"]["annotations"], "published_slice", "published_bbox"),
    "volumes": ("id", "name", "file_name", "geometry"),
}


def _check_rows(path: str | os.PathLike, table: str, rows: Any, keys: tuple[str, ...]) -> None:
    if not isinstance(rows, list):
        raise InputError(f"{path}: '{table}' is a {type(rows).__name__}; expected a list of rows")
    for i, row in enumerate(rows):
        if not isinstance(row, dict):
            raise InputError(f"{path}: {table}[{i}] is {row!r}; expected an object")
        for key in keys:
            if key not in row:
                raise InputError(
                    f"{path}: {table}[{i}] has no key '{key}'; expected the keys {', '.join(keys)}"
                )


def _check_annotations(path: str | os.PathLike, content: dict) -> None:
    image_ids = {image["id"] for image in content["images"]}
    for i, row in enumerate(content["annotations"]):
        where = f"{path}: annotations[{i}] (id {row['id']})"
        if row["source"] not in SOURCES:
            raise InputError(
                f"{where} has the source {row['source']!r}; expected one of {', '.join(SOURCES)}"
            )
        if row["image_id"] not in image_ids:
            raise InputError(
                f"{where} has the image_id {row['image_id']!r}; expected the id of an entry of "
                "'images'"
            )
        bbox = row["bbox"]
        if not (isinstance(bbox, list) and len(bbox) == 4 and bbox[2] > 0 and bbox[3] > 0):
            raise InputError(
                f"{where} has the bbox {bbox!r}; expected [x, y, width, height] with a positive "
                "size"
            )


def read_annotation_file(path: str | os.PathLike, sample: str) -> dict[str, list[dict]]:
    """Read an annotation file of the converter and check what a sample type needs of it.

    Args:
        path: The JSON file.
        sample: ``'slice'`` or ``'volume'``; volumes need the table ``volumes`` and the published
            boxes as well.

    Returns:
        The tables ``categories``, ``images``, ``annotations`` and ``volumes``; for slices the last
        is empty where the file has none.

    Raises:
        InputError: The file is missing, is no JSON, has no images, or a row is incomplete or
            refers to what is not there. The message names file, row and key.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} is not there; {_HOW_TO_CONVERT}")
    try:
        content = read_json(path)
    except ValueError as error:
        raise InputError(str(error)) from None
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected an object with tables")
    for table, keys in _KEYS[sample].items():
        if table not in content:
            raise InputError(f"{path} has no key '{table}'; {_HOW_TO_CONVERT}")
        _check_rows(path, table, content[table], keys)
    if sample == "slice" and "volumes" in content:
        _check_rows(path, "volumes", content["volumes"], _KEYS["volume"]["volumes"])
    if not content["images"]:
        raise InputError(f"{path}: 'images' is empty; expected at least one slice")
    _check_annotations(path, content)
    if sample == "volume":
        names = {volume["name"] for volume in content["volumes"]}
        for i, image in enumerate(content["images"]):
            if image["volume"] not in names:
                raise InputError(
                    f"{path}: images[{i}] has the volume {image['volume']!r}; expected the name of "
                    "an entry of 'volumes'"
                )
    return {"volumes": []} | {
        table: content[table] for table in _KEYS["volume"] if table in content
    }
