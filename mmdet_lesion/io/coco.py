"""Reading and writing of COCO files with lesion boxes on slices, and reading of detections.

Converted datasets have an additional table ``volumes``, and each annotation has a ``source``:
``recist`` (RECIST measurement), ``full`` (complete annotation), ``mined``, or ``hard_negative``
(confident detection that hits no lesion). ``bbox`` is ``[x, y, width, height]`` in half-open
pixels of the store, ``published_bbox`` is ``[x1, y1, x2, y2]`` in published coordinates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..structures import Geometry, published_to_voxels
from .json_schema import objects, read_validated_json

__all__ = [
    "LESION_SOURCES",
    "SOURCES",
    "CocoBoxes",
    "CocoBuilder",
    "StoredEntry",
    "read_annotation_file",
    "read_coco_boxes",
    "read_coco_results",
]

LESION_SOURCES = ("recist", "full", "mined")
SOURCES = (*LESION_SOURCES, "hard_negative")

_HINT = "write it with tools/dataset_converters/deeplesion.py RAW --out DATA_ROOT"
_ID = {"type": ["integer", "string"]}
_BBOX = {"type": "array", "minItems": 4, "maxItems": 4}
_STRING = {"type": "string"}
_VOLUMES = objects("id", "name", "file_name", "geometry", name=_STRING)


def _schema(
    image_keys: Sequence[str],
    annotation_keys: Sequence[str],
    tables: Sequence[str],
    volumes: dict = _VOLUMES,
    **more,
) -> dict[str, Any]:
    """Return the schema of a file with these tables and keys, and optional ``volumes``."""
    images = objects(*image_keys, min_items=1, id=_ID, volume=_STRING, spacing={"type": "array"})
    annotations = objects(*annotation_keys, image_id=_ID, bbox=_BBOX, **more)
    properties = {
        "categories": objects("id", "name"),
        "images": images,
        "annotations": annotations,
        "volumes": volumes,
    }
    return {"type": "object", "required": list(tables), "properties": properties}


_IMAGE_KEYS = ("id", "file_name", "volume", "slice_index", "height", "width", "spacing")
_ANNOTATION_KEYS = ("id", "image_id", "category_id", "bbox", "source")
_TABLES = ("categories", "images", "annotations")
_SOURCE = {"source": {"enum": list(SOURCES)}}
_SCHEMAS = {
    "boxes": _schema(("id",), ("image_id", "bbox"), _TABLES[1:], objects(name=_STRING)),
    "slice": _schema(_IMAGE_KEYS, _ANNOTATION_KEYS, _TABLES, **_SOURCE),
    "volume": _schema(
        _IMAGE_KEYS,
        (*_ANNOTATION_KEYS, "published_slice", "published_bbox"),
        (*_TABLES, "volumes"),
        **_SOURCE,
    ),
}
_RESULTS = objects("image_id", "bbox", "score", image_id=_ID, bbox=_BBOX)


def read_annotation_file(path: str | os.PathLike, sample: str) -> dict[str, list[dict]]:
    """Read a converted annotation file.

    Args:
        path: The JSON file.
        sample: ``'slice'`` or ``'volume'``. Volumes also need the table ``volumes`` and published
            boxes.

    Returns:
        The tables ``categories``, ``images``, ``annotations`` and ``volumes``. For slices, the
        last one is empty if the file does not have it.

    Raises:
        InputError: The file is missing or invalid, or an entry refers to a missing one. The
            message names file, entry and key.
    """
    content = _read(path, sample)
    if sample == "volume":
        names = {volume["name"] for volume in content["volumes"]}
        for i, image in enumerate(content["images"]):
            if image["volume"] not in names:
                raise InputError(
                    f"{path}: images[{i}] has the volume {image['volume']!r}; expected the name of "
                    "an entry of 'volumes'"
                )
    return {"volumes": []} | {
        table: content[table] for table in (*_TABLES, "volumes") if table in content
    }


@dataclass(frozen=True)
class CocoBoxes:
    """Lesion boxes by image.

    Args:
        boxes: Boxes xyxy with inclusive ends by image id, shape (N, 4); images without a lesion
            are included.
        annotations: The file's annotations in the order of ``boxes``.
        images: The file's images by id.
        volumes: The file's table ``volumes``; empty if the file does not have it.
    """

    boxes: dict[int, np.ndarray]
    annotations: list[dict]
    images: dict[int, dict]
    volumes: list[dict]


def read_coco_boxes(path: str | os.PathLike) -> CocoBoxes:
    """Read the ground-truth boxes of any COCO file, regardless of category.

    Boxes ``[x, y, width, height]`` become ``[x, y, x + width - 1, y + height - 1]`` with inclusive
    ends. Hard negatives are omitted.

    Args:
        path: The JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is invalid, an annotation is a crowd or refers to a missing image, or
            an image is listed twice.
    """
    content = _read(path, "boxes")
    images: dict[int, dict] = {}
    for i, image in enumerate(content["images"]):
        if image["id"] in images:
            raise InputError(
                f"{path}: images[{i}] has the id {image['id']!r} again; expected unique ids"
            )
        images[image["id"]] = image
    entries: dict[int, list[dict]] = {name: [] for name in images}
    for i, annotation in enumerate(content["annotations"]):
        if annotation.get("source") == "hard_negative":
            continue
        if annotation.get("iscrowd"):
            raise InputError(f"{path}: annotations[{i}] is a crowd; expected single boxes")
        entries[annotation["image_id"]].append(annotation)
    return CocoBoxes(
        {name: _inclusive([one["bbox"] for one in found]) for name, found in entries.items()},
        [entry for found in entries.values() for entry in found],
        images,
        content.get("volumes", []),
    )


def read_coco_results(path: str | os.PathLike, known: Collection[int]) -> dict[int, np.ndarray]:
    """Read detections in COCO's format, ``[{image_id, bbox, score}, ...]``.

    Args:
        path: The JSON file.
        known: Ids of the images to evaluate.

    Returns:
        Boxes xyxy with inclusive ends and score by image id, shape (N, 5).

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is invalid, or an entry refers to an unknown image.
    """
    rows: dict[int, list] = {}
    for i, entry in enumerate(read_validated_json(path, _RESULTS)):
        where, image, score = f"{path}: [{i}]", entry["image_id"], entry["score"]
        if image not in known:
            raise InputError(
                f"{where} has the image_id {image!r}; expected the id of an image of the ground "
                "truth"
            )
        if not _is_number(score):
            raise InputError(f"{where} has the score {score!r}; expected a finite number")
        _check_bbox(where, entry["bbox"], min_size=0)
        rows.setdefault(image, []).append([*entry["bbox"], score])
    arrays = {image: np.array(found, dtype=np.float64) for image, found in rows.items()}
    return {name: np.hstack((_inclusive(a[:, :4]), a[:, 4:])) for name, a in arrays.items()}


def _read(path: str | os.PathLike, kind: str) -> dict[str, list[dict]]:
    """Read a file and check that annotations have positive boxes on existing images."""
    content = read_validated_json(path, _SCHEMAS[kind], "" if kind == "boxes" else _HINT)
    image_ids = {image["id"] for image in content["images"]}
    for i, row in enumerate(content["annotations"]):
        where = f"{path}: annotations[{i}]"
        if row["image_id"] not in image_ids:
            raise InputError(
                f"{where} has the image_id {row['image_id']!r}; expected the id of an entry of "
                "'images'"
            )
        _check_bbox(where, row["bbox"], min_size=np.finfo(float).tiny)
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_bbox(where: str, bbox: list, min_size: float) -> None:
    if not all(map(_is_number, bbox)) or min(bbox[2:]) < min_size:
        raise InputError(
            f"{where} has the bbox {bbox!r}; expected [x, y, width, height] with a positive size"
        )


def _inclusive(boxes: ArrayLike) -> np.ndarray:
    array = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return np.hstack((array[:, :2], array[:, :2] + array[:, 2:] - 1))


@dataclass(frozen=True)
class StoredEntry:
    """Volume of the store with its published geometry.

    Args:
        name: Name of the volume.
        file_name: File in the store.
        first_slice: Number of the first slice in the series' folder.
        geometry: Geometry of the stored volume.
        published: Geometry of the published volume.
        masks: Segmentation masks by annotation key, as COCO's RLE in store pixels.
    """

    name: str
    file_name: str
    first_slice: int
    geometry: Geometry
    published: Geometry
    masks: Mapping[str, dict] = field(default_factory=dict)

    @property
    def last_slice(self) -> int:
        """Number of the last slice in the series' folder."""
        return self.first_slice + self.published.shape[0] - 1

    def boxes_to_store(self, boxes: Sequence[Sequence[float]]) -> np.ndarray:
        """Convert published boxes (N, 4) to voxels of the store."""
        return self.published.boxes_to(self.geometry, published_to_voxels(boxes))


class CocoBuilder:
    """Collect images and annotations of a COCO file; ids start at 1 in the order of addition.

    Args:
        description: Description of the file.
    """

    def __init__(self, description: str) -> None:
        self._content: dict[str, Any] = {
            "info": {"description": description, "coordinates": "store pixels, half-open edges"},
            "categories": [{"id": 1, "name": "lesion"}],
            "volumes": [],
            "images": [],
            "annotations": [],
        }
        self._volume_ids: dict[str, int] = {}
        self._image_ids: dict[tuple[str, int], int] = {}

    def _volume(self, entry: StoredEntry) -> int:
        if entry.name not in self._volume_ids:
            self._volume_ids[entry.name] = len(self._volume_ids) + 1
            self._content["volumes"].append(
                {
                    "id": self._volume_ids[entry.name],
                    "name": entry.name,
                    "file_name": entry.file_name,
                    "geometry": entry.geometry.to_dict(),
                    "published_geometry": entry.published.to_dict(),
                    "first_slice": entry.first_slice,
                    "patient": entry.name.partition("_")[0],
                }
            )
        return self._volume_ids[entry.name]

    def image(self, entry: StoredEntry, z: int) -> int:
        """Return the id of a published slice, which is added if it does not exist."""
        key = (entry.name, z)
        if key not in self._image_ids:
            self._image_ids[key] = len(self._image_ids) + 1
            _, height, width = entry.geometry.shape
            self._content["images"].append(
                {
                    "id": self._image_ids[key],
                    "file_name": entry.file_name,
                    "volume": entry.name,
                    "volume_id": self._volume(entry),
                    "slice_index": z,
                    "height": height,
                    "width": width,
                    "spacing": list(entry.geometry.spacing),
                }
            )
        return self._image_ids[key]

    def annotate(
        self,
        entry: StoredEntry,
        z: int,
        box: tuple[float, ...],
        source: str,
        lesion_type: int = -1,
        recist: tuple[float, ...] = (),
        mask: dict | None = None,
    ) -> None:
        """Add an annotation.

        Args:
            entry: The volume.
            z: Published slice, zero-based within the volume.
            box: Published ``x1, y1, x2, y2``.
            source: ``recist``, ``full``, ``mined`` or ``hard_negative``.
            lesion_type: 1 … 8, or -1 if unknown.
            recist: Published end points of the diameters, 8 numbers, or empty.
            mask: Segmentation mask as COCO's RLE in store pixels.
        """
        x1, y1, x2, y2 = entry.boxes_to_store([box])[0].tolist()
        annotation = {
            "id": len(self._content["annotations"]) + 1,
            "image_id": self.image(entry, z),
            "category_id": 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            "source": source,
            "lesion_type": lesion_type,
            "published_slice": z,
            "published_bbox": list(box),
        }
        if recist:
            points = np.reshape(recist, (-1, 2)) - 0.5
            points = entry.published.points_to(entry.geometry, points)
            annotation["recist"] = points.ravel().tolist()
            annotation["published_recist"] = list(recist)
        if mask:
            annotation["segmentation"] = mask
        self._content["annotations"].append(annotation)

    @property
    def counts(self) -> dict[str, int]:
        """Number of volumes, images and annotations."""
        return {name: len(self._content[name]) for name in ("volumes", "images", "annotations")}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self._content
