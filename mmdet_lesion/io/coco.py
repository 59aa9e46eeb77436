"""COCO's JSON, as far as evaluating boxes needs it."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError
from .atomic import read_json

__all__ = [
    "LESION_SOURCES",
    "SOURCES",
    "CocoBoxes",
    "read_annotation_file",
    "read_coco_boxes",
    "read_coco_results",
]


@dataclass(frozen=True, eq=False)
class CocoBoxes:
    """Lesion boxes by image.

    Args:
        boxes: ``{image id: (n, 4)}`` with inclusive ends; images without a lesion are kept.
        annotations: The file's entries in the order of ``boxes``, image by image.
        images: The file's entry of every image.
        volumes: The file's table ``volumes``, which converted data sets have.
    """

    boxes: dict[int, np.ndarray]
    annotations: list[dict]
    images: dict[int, dict]
    volumes: list[dict]


def read_coco_boxes(path: str | os.PathLike) -> CocoBoxes:
    """Read ground truth in COCO's form; categories are not told apart.

    COCO's boxes are ``[x, y, width, height]``; they become ``[x, y, x + width - 1,
    y + height - 1]``, whose inclusive size is width by height. Entries with the source
    ``hard_negative`` are no lesions and are left out.

    Args:
        path: The JSON file.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no such JSON, has no image, an annotation is incomplete, is a crowd,
            or refers to an image that is not there.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected an object with tables")
    for table in ("images", "annotations"):
        if not isinstance(content.get(table), list):
            raise InputError(f"{path} has no list '{table}'; expected COCO ground truth")
    images: dict[int, dict] = {}
    for i, image in enumerate(content["images"]):
        name = _get(image, "id", f"{path}: images[{i}]")
        if name in images:
            raise InputError(f"{path}: images[{i}] has the id {name!r} again; expected each once")
        images[name] = image
    if not images:
        raise InputError(f"{path}: 'images' is empty; expected at least one")
    rows: dict[int, list] = {name: [] for name in images}
    entries: dict[int, list[dict]] = {name: [] for name in images}
    for i, annotation in enumerate(content["annotations"]):
        where = f"{path}: annotations[{i}]"
        image = _get(annotation, "image_id", where)
        if image not in images:
            raise InputError(f"{where} has the image_id {image!r}; expected the id of an image")
        if annotation.get("source") == "hard_negative":
            continue
        if annotation.get("iscrowd"):
            raise InputError(
                f"{where} has iscrowd {annotation['iscrowd']!r}; expected single boxes"
            )
        rows[image].append(_inclusive(annotation, where, empty=False))
        entries[image].append(annotation)
    return CocoBoxes(
        {name: np.array(found, dtype=np.float64).reshape(-1, 4) for name, found in rows.items()},
        [entry for found in entries.values() for entry in found],
        images,
        content.get("volumes", []),
    )


def read_coco_results(path: str | os.PathLike, known: Collection[int]) -> dict[int, np.ndarray]:
    """Read detections in COCO's form, ``[{image_id, bbox, score}, ...]``.

    Args:
        path: The JSON file.
        known: The images that are evaluated.

    Returns:
        ``{image id: (n, 5)}`` rows with inclusive ends and the score.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no such JSON, an entry is incomplete or of an unknown image.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path} holds a {type(content).__name__}; expected a list of detections")
    rows: dict[int, list] = {}
    for i, detection in enumerate(content):
        where = f"{path}: entry {i}"
        image = _get(detection, "image_id", where)
        if image not in known:
            raise InputError(
                f"{where} has the image_id {image!r}; expected the id of an image of the ground "
                "truth"
            )
        score = _get(detection, "score", where)
        if not _is_number(score):
            raise InputError(f"{where} has the score {score!r}; expected a finite number")
        rows.setdefault(image, []).append([*_inclusive(detection, where, empty=True), score])
    return {image: np.array(found, dtype=np.float64) for image, found in rows.items()}


def _get(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or key not in entry:
        raise InputError(f"{where} has no key '{key}'; expected COCO's form")
    value = entry[key]
    if key.endswith("id") and not isinstance(value, int | str):
        raise InputError(f"{where} has the {key} {value!r}; expected a number")
    return value


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and bool(np.isfinite(value))


def _inclusive(entry: dict, where: str, *, empty: bool) -> list[float]:
    box = _get(entry, "bbox", where)
    right = isinstance(box, list) and len(box) == 4 and all(map(_is_number, box))
    if not right or min(box[2:]) < 0 or (min(box[2:]) == 0 and not empty):
        raise InputError(
            f"{where} has the bbox {box!r}; expected [x, y, width, height] with a positive size"
        )
    x, y, width, height = box
    return [x, y, x + width - 1, y + height - 1]


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
