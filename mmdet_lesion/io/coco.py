"""Reading and writing of COCO files with lesion boxes on slices, and reading of detections.

``annotations.schema.json`` describes all keys of annotation files for training and testing.
``bbox`` is ``[x, y, width, height]`` in half-open pixels of the store, ``published_bbox`` is ``[x1,
y1, x2, y2]`` in published coordinates.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError
from ..structures import Geometry, published_to_voxels, voxels_to_published
from ..structures.tracklets import Tracklets
from .json_schema import objects, read_schema, read_validated_json

__all__ = [
    "LESION_SOURCES",
    "SOURCES",
    "CocoBoxes",
    "CocoBuilder",
    "StoredEntry",
    "published_bbox",
    "read_annotation_file",
    "read_coco_boxes",
    "read_coco_results",
]

LESION_SOURCES = ("recist", "full", "mined", "reviewed")
SOURCES = (*LESION_SOURCES, "hard_negative")

_HINT = "write it with a converter of tools/dataset_converters, or by hand as in docs/data.md"
_ID = {"type": ["integer", "string"]}
_BBOX = {"type": "array", "minItems": 4, "maxItems": 4}
_TABLES = ("categories", "images", "annotations", "volumes")
# Boxes of any COCO file, in which other keys have other meanings.
_ANY_COCO = {
    "type": "object",
    "required": ["images", "annotations"],
    "properties": {
        "images": objects("id", min_items=1, id=_ID, volume={"type": "string"},
                          spacing={"type": "array"}),
        "annotations": objects("image_id", "bbox", image_id=_ID, bbox=_BBOX),
        "volumes": objects(name={"type": "string"}),
    },
}  # fmt: skip
_RESULTS = objects("image_id", "bbox", "score", image_id=_ID, bbox=_BBOX)


def read_annotation_file(
    path: str | os.PathLike, volumes: str | os.PathLike | None = None
) -> dict[str, list[dict]]:
    """Read an annotation file, in which ``annotations.schema.json`` describes every key.

    Keys that the file lacks are completed from the stored volumes: ``volumes``, ``file_name``,
    ``height``, ``width`` and ``spacing`` of images, and ``source`` (``'recist'``),
    ``published_slice`` and ``published_bbox`` of annotations.

    Args:
        path: The JSON file.
        volumes: Folder of the stored volumes, by default ``volumes`` beside the folder of the file.

    Returns:
        The tables ``categories``, ``images``, ``annotations`` and ``volumes``.

    Raises:
        InputError: The file is missing or invalid, an entry refers to a missing one, or a volume
            from which keys are to be completed is missing. The message names file, entry and key.
    """
    content = _read(path, read_schema("annotations"), _HINT)
    folder = Path(path).parent.parent / "volumes" if volumes is None else Path(volumes)
    if "volumes" not in content:
        names = dict.fromkeys(image["volume"] for image in content["images"])
        content["volumes"] = [
            _volume_of_file(path, folder, number, name) for number, name in enumerate(names, 1)
        ]
    table = {volume["name"]: volume for volume in content["volumes"]}
    for i, image in enumerate(content["images"]):
        volume = table.get(image["volume"])
        if volume is None:
            raise InputError(
                f"{path}: images[{i}] has the volume {image['volume']!r}; expected the name of an "
                "entry of 'volumes'"
            )
        depth, height, width = volume["geometry"]["shape"]
        if image["slice_index"] >= depth:
            raise InputError(
                f"{path}: images[{i}] has the slice_index {image['slice_index']}; expected 0 to "
                f"{depth - 1}, since {image['volume']} has {depth} slices"
            )
        image.setdefault("file_name", volume["file_name"])
        image.setdefault("height", height)
        image.setdefault("width", width)
        image.setdefault("spacing", volume["geometry"]["spacing"])
    images = {image["id"]: image for image in content["images"]}
    for annotation in content["annotations"]:
        image = images[annotation["image_id"]]
        annotation.setdefault("source", "recist")
        annotation.setdefault("published_slice", image["slice_index"])
        if "published_bbox" not in annotation:
            annotation["published_bbox"] = published_bbox(
                annotation["bbox"], table[image["volume"]]
            )
    return {table: content[table] for table in _TABLES}


def _volume_of_file(path: str | os.PathLike, folder: Path, number: int, name: str) -> dict:
    """Return the entry of ``volumes`` of a stored volume."""
    # Opening volumes needs blosc2.
    from .volume_store import SUFFIX, open_volume

    file = folder / (name + SUFFIX)
    if not file.is_file():
        raise InputError(
            f"{path}: 'images' names the volume {name!r}, but {file} does not exist; expected a "
            "stored volume"
        )
    geometry = open_volume(file).geometry.to_dict()
    return {"id": number, "name": name, "file_name": file.name, "geometry": geometry}


def published_bbox(bbox: Sequence[float], volume: Mapping[str, Any]) -> list[float]:
    """Convert a box of an annotation file to published coordinates.

    Args:
        bbox: ``[x, y, width, height]`` in pixels of the stored volume.
        volume: Entry of ``volumes``, with ``geometry`` and, if it differs, ``published_geometry``.

    Returns:
        ``[x1, y1, x2, y2]`` in published pixels.
    """
    x, y, width, height = bbox
    stored = Geometry.from_dict(volume["geometry"])
    published = Geometry.from_dict(volume.get("published_geometry", volume["geometry"]))
    box = stored.boxes_to(published, [[x, y, x + width, y + height]])
    return voxels_to_published(box)[0].tolist()


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
    content = _read(path, _ANY_COCO)
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


def _read(path: str | os.PathLike, schema: dict[str, Any], hint: str = "") -> dict[str, list[dict]]:
    """Read a file and check that annotations have positive boxes on existing images."""
    content = read_validated_json(path, schema, hint)
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
        patient: Patient, by default the part of the name before the first ``_``, as in DeepLesion.
    """

    name: str
    file_name: str
    first_slice: int
    geometry: Geometry
    published: Geometry
    masks: Mapping[str, dict] = field(default_factory=dict)
    patient: str | None = None

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
        self._volume_ids: dict[str, Any] = {}
        self._image_ids: dict[tuple[str, int], Any] = {}
        self._category: Any = 1
        self._next = dict.fromkeys(("volumes", "images", "annotations"), 1)

    @classmethod
    def from_content(cls, content: dict[str, Any], info: Mapping[str, Any]) -> CocoBuilder:
        """Continue a file.

        Args:
            content: Tables of :func:`read_annotation_file`, which are changed.
            info: Entries of ``info``, among them the ``description``.
        """
        builder = cls(info["description"])
        builder._content["info"].update(info)
        builder._content.update(content)
        builder._volume_ids = {volume["name"]: volume["id"] for volume in content["volumes"]}
        builder._image_ids = {
            (image["volume"], image["slice_index"]): image["id"] for image in content["images"]
        }
        builder._category = content["categories"][0]["id"]
        builder._next = {
            table: 1
            + max((one["id"] for one in content[table] if type(one["id"]) is int), default=0)
            for table in ("volumes", "images", "annotations")
        }
        return builder

    def _new_id(self, table: str) -> int:
        number = self._next[table]
        self._next[table] += 1
        return number

    def _volume(self, entry: StoredEntry) -> int:
        if entry.name not in self._volume_ids:
            self._volume_ids[entry.name] = self._new_id("volumes")
            self._content["volumes"].append(
                {
                    "id": self._volume_ids[entry.name],
                    "name": entry.name,
                    "file_name": entry.file_name,
                    "geometry": entry.geometry.to_dict(),
                    "published_geometry": entry.published.to_dict(),
                    "first_slice": entry.first_slice,
                    "patient": entry.patient or entry.name.partition("_")[0],
                }
            )
        return self._volume_ids[entry.name]

    def image(self, entry: StoredEntry, z: int) -> int:
        """Return the id of a published slice, which is added if it does not exist."""
        key = (entry.name, z)
        if key not in self._image_ids:
            self._image_ids[key] = self._new_id("images")
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
        lesion_id: int | str | None = None,
        score: float | None = None,
    ) -> None:
        """Add an annotation.

        Args:
            entry: The volume.
            z: Published slice, zero-based within the volume.
            box: Published ``x1, y1, x2, y2``.
            source: ``recist``, ``full``, ``mined``, ``reviewed`` or ``hard_negative``.
            lesion_type: 1 … 8, or -1 if unknown.
            recist: Published end points of the diameters, 8 numbers, or empty.
            mask: Segmentation mask as COCO's RLE in store pixels.
            lesion_id: Lesion within the volume, which several annotations may have.
            score: Score of the detector that found it.
        """
        x1, y1, x2, y2 = entry.boxes_to_store([box])[0].tolist()
        annotation = {
            "id": self._new_id("annotations"),
            "image_id": self.image(entry, z),
            "category_id": self._category,
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
        if lesion_id is not None:
            annotation["lesion_id"] = lesion_id
        if score is not None:
            annotation["score"] = score
        self._content["annotations"].append(annotation)

    def annotate_tracklets(
        self,
        entry: StoredEntry,
        tracklets: Tracklets,
        source: str,
        prefix: str,
        all_slices: bool = False,
    ) -> None:
        """Add the boxes of tracklets of a volume.

        Args:
            entry: The volume.
            tracklets: Tracklets in published coordinates.
            source: As for :meth:`annotate`.
            prefix: Start of their ``lesion_id``, which ends with the number of the tracklet.
            all_slices: Whether every slice of a tracklet becomes an image. By default, boxes are
                added on slices that are images already and on the slice with the highest score of
                each tracklet.
        """
        lists = tracklets.to_harvester()
        for boxes in lists:
            z, _ = max(boxes, key=lambda box: box[1][4])
            self.image(entry, z)
        for number, boxes in enumerate(lists, start=1):
            for z, (*box, score) in boxes:
                if all_slices or (entry.name, z) in self._image_ids:
                    lesion_id = f"{prefix}{number}"
                    self.annotate(entry, z, tuple(box), source, lesion_id=lesion_id, score=score)

    @property
    def counts(self) -> dict[str, int]:
        """Number of volumes, images and annotations."""
        return {name: len(self._content[name]) for name in ("volumes", "images", "annotations")}

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the file."""
        return self._content
