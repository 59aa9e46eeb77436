"""Completely annotated samples, cropped from a dataset or from phantoms."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from mmdet_lesion import InputError
from mmdet_lesion.converters import DeepLesionConversion, Luna16Conversion
from mmdet_lesion.io import SUFFIX, open_volume, read_json, save_volume, write_json
from mmdet_lesion.io.coco import read_annotation_file
from mmdet_lesion.io.data_list import data_list_file, read_data_list, scan_entry
from mmdet_lesion.structures import Geometry, Volume, voxels_to_published
from mmdet_lesion.synthesis import (
    Luna16PhantomConfig,
    PhantomConfig,
    make_deeplesion,
    make_luna16,
)

__all__ = [
    "Handful",
    "add_hard_negatives",
    "crop_scans",
    "crop_slices",
    "name_sources",
    "phantom_scans",
    "phantom_slices",
]

#: Extent of the slices kept on either side of a lesion's slice in mm, for linking detections.
SLAB = 2.0
#: Largest lesion as a fraction of the edge length of a crop.
_LARGEST = 0.75
# Marks a folder as written by a rehearsal, and as complete.
_RECORD = "rehearsal.json"
# Increase it when the converters write other files, so that the phantoms are converted again.
_STORE_FORMAT = 4
# Numbers of phantoms to choose the samples from.
_VOLUMES, _SCANS = 16, 8


@dataclass(frozen=True)
class Handful:
    """Paths of the samples.

    Args:
        data_root: Folder with ``volumes/``.
        ann_file: Annotation file of the labeled samples, relative to ``data_root``.
        unlabeled: List of unlabeled scans, or None.
    """

    data_root: Path
    ann_file: str
    unlabeled: str | None = None


def phantom_slices(out: Path) -> tuple[Path, dict[str, Path]]:
    """Generate and convert phantoms with one annotated lesion per volume.

    Args:
        out: Folder for data that other rehearsals reuse.

    Returns:
        Folder of the volumes, and the annotation file for key slices (``slice``) and for whole
        volumes (``volume``).
    """
    folder = out / "phantom_slices"
    raw, data = folder / "raw", folder / "store"
    files = {
        "slice": data / "annotations" / "test.json",
        "volume": data / "annotations" / "harvester_test.json",
    }
    settings = PhantomConfig(
        volumes=_VOLUMES,
        missing=0.0,
        size=512,
        slices=(11, 11),
        intervals=(2.0,),
        lesions=(1, 1),
        lesion_types=(2, 3, 4, 6),
        diameter=(15.0, 50.0),
        contrast=(40.0, 120.0),
        hypodense=0.0,
        split=(0, 0, _VOLUMES),
    )
    if not _is_made(folder, settings):
        make_deeplesion(raw, settings, workers=2, overwrite=True)
        DeepLesionConversion(raw, data, spacing=(0.0, 0.0), masks=True).run(
            workers=2, progress=False
        )
        _mark_made(folder, settings)
    return data / "volumes", files


def phantom_scans(out: Path) -> tuple[Path, Path, Path]:
    """Generate and convert chest phantoms at 1 mm with solid nodules.

    Args:
        out: Folder for data that other rehearsals reuse.

    Returns:
        Folder of the volumes, and the lists of labeled and of unlabeled scans.
    """
    folder = out / "phantom_scans"
    raw, data = folder / "raw", folder / "store"
    settings = Luna16PhantomConfig(
        volumes=_SCANS,
        size=256,
        pixel=(0.9, 1.0),
        interval=(1.0, 1.5),
        stature=(0.5, 0.7),
        nodules=(3, 5),
        diameter=(6.0, 24.0),
        subsolid=0.0,
        findings=(0, 2),
        padded=0.0,
    )
    labeled, unlabeled = _SCANS // 2, _SCANS // 2 - 1
    if not _is_made(folder, settings):
        make_luna16(raw, settings, workers=2, overwrite=True)
        Luna16Conversion(
            raw, data, train=_SCANS - 1, test=1, labeled=[labeled], unlabeled=unlabeled
        ).run(workers=2, progress=False)
        _mark_made(folder, settings)
    annotations = data / "annotations"
    return (
        data / "volumes",
        annotations / f"labeled_{labeled}.json",
        annotations / f"unlabeled_{unlabeled}.json",
    )


def _is_made(folder: Path, settings: Any) -> bool:
    """Return whether the phantoms exist; empties the folder if they do not."""
    path = folder / _RECORD
    if folder.exists():
        if not path.is_file():
            raise InputError(
                f"{folder} has no {_RECORD}, so no rehearsal wrote it; expected another --out"
            )
        if read_json(path) == _record(settings, complete=True):
            return True
        # Generated with other settings, stored in an earlier format, or incomplete.
        shutil.rmtree(folder)
    write_json(path, _record(settings, complete=False))
    return False


def _mark_made(folder: Path, settings: Any) -> None:
    write_json(folder / _RECORD, _record(settings, complete=True))


def _record(settings: Any, complete: bool) -> dict[str, Any]:
    return {"settings": repr(settings), "store_format": _STORE_FORMAT, "complete": complete}


def crop_slices(
    ann_file: Path,
    volumes: Path,
    out: Path,
    num: int,
    size: int | None,
    seed: int,
    whole: bool,
) -> Handful:
    """Crop lesions and their surroundings from a store of sub-volumes.

    Args:
        ann_file: Annotation file of the converter.
        volumes: Its volumes.
        out: Folder to write to.
        num: Number of samples, each from a different volume.
        size: Edge length of the crops in pixels; None keeps whole slices.
        seed: Seed of the selection.
        whole: Crop for tests on volumes: keep only the published slices within ``SLAB`` mm of the
            lesion.

    Raises:
        InputError: No lesion fits.
    """
    content = read_annotation_file(ann_file, volumes)
    images = {image["id"]: image for image in content["images"]}
    table = {volume["name"]: volume for volume in content["volumes"]}
    by_volume: dict[str, list[dict]] = {}
    for annotation in content["annotations"]:
        largest = max(annotation["bbox"][2:])
        if annotation["source"] != "hard_negative" and (not size or largest <= _LARGEST * size):
            by_volume.setdefault(images[annotation["image_id"]]["volume"], []).append(annotation)
    if not by_volume:
        raise InputError(
            f"{ann_file}: no lesion fits into a crop of {size} pixels; use a larger --crop"
        )
    rng = np.random.default_rng(seed)
    names = sorted(by_volume)
    chosen = [names[i] for i in sorted(rng.permutation(len(names))[:num])]
    tables: dict[str, list[dict]] = {"volumes": [], "images": [], "annotations": []}
    for name in chosen:
        center = by_volume[name][rng.integers(len(by_volume[name]))]
        volume = table[name]
        own = [
            (images[one["image_id"]]["slice_index"], one)
            for one in content["annotations"]
            if images[one["image_id"]]["volume"] == name and one["source"] != "hard_negative"
        ]
        z = images[center["image_id"]]["slice_index"]
        _crop_volume(volume, volumes, out, center["bbox"], z, own, size, whole, tables)
    path = "annotations/handful.json"
    write_json(
        out / path,
        {
            "info": {"description": f"{num} samples of {ann_file}, cropped for a rehearsal"},
            "categories": content["categories"],
            **tables,
        },
    )
    return Handful(out, path)


def name_sources(handful: Handful, sources: Sequence[str]) -> str:
    """Distribute the lesions of the samples over sources in turn.

    Args:
        handful: The samples of :func:`crop_slices`.
        sources: The sources that the training reads.

    Returns:
        The annotation file for training, relative to ``data_root``.
    """
    content = read_json(handful.data_root / handful.ann_file)
    for index, annotation in enumerate(content["annotations"]):
        annotation["source"] = sources[index % len(sources)]
    path = "annotations/sources.json"
    write_json(handful.data_root / path, content)
    return path


def add_hard_negatives(handful: Handful) -> str:
    """Add a hard negative to each image: the brightest place of a lesion's size without a lesion.

    Args:
        handful: The samples of :func:`crop_slices`.

    Returns:
        The annotation file for training, relative to ``data_root``.
    """
    content = read_json(handful.data_root / handful.ann_file)
    lesions: dict[int, list[list[float]]] = {}
    for annotation in content["annotations"]:
        lesions.setdefault(annotation["image_id"], []).append(annotation["bbox"])
    for image in content["images"]:
        volume = open_volume(handful.data_root / "volumes" / image["file_name"])
        index = image["slice_index"]
        hu = volume.read_slices(index, index + 1)[0].astype(np.float32)
        boxes = lesions[image["id"]]
        width, height = (math.ceil(side) for side in boxes[0][2:])
        top, left = np.indices(hu.shape)
        free = (top + height <= hu.shape[0]) & (left + width <= hu.shape[1])
        for x, y, w, h in boxes:
            free &= (left + width <= x) | (left >= x + w) | (top + height <= y) | (top >= y + h)
        if not free.any():
            continue
        # The filter's window of size n begins n // 2 before its center.
        mean = ndimage.uniform_filter(hu, (height, width))
        mean = np.roll(mean, (-(height // 2), -(width // 2)), (0, 1))
        y, x = np.unravel_index(np.argmax(np.where(free, mean, -np.inf)), hu.shape)
        box = [float(x), float(y), float(width), float(height)]
        content["annotations"].append(
            {
                "id": len(content["annotations"]) + 1,
                "image_id": image["id"],
                "category_id": content["categories"][0]["id"],
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": 0,
                "source": "hard_negative",
                "lesion_type": -1,
                "score": 1.0,
            }
        )
    path = "annotations/hard_negatives.json"
    write_json(handful.data_root / path, content)
    return path


def _crop_volume(
    volume: dict,
    folder: Path,
    out: Path,
    bbox: Sequence[float],
    z: int,
    own: list[tuple[int, dict]],
    size: int | None,
    whole: bool,
    tables: dict[str, list[dict]],
) -> None:
    stored = open_volume(folder / volume["file_name"])
    depth, height, width = stored.shape
    height, width = (min(size or edge, edge) for edge in (height, width))
    x0, y0 = (
        int(np.clip(round(start + length / 2 - edge / 2), 0, full - edge))
        for start, length, edge, full in (
            (bbox[0], bbox[2], width, stored.shape[2]),
            (bbox[1], bbox[3], height, stored.shape[1]),
        )
    )
    # Training reads a slice stack around the key slice; a test on volumes predicts every slice.
    reach = math.ceil((SLAB if whole else 20 * SLAB) / stored.spacing[2])
    z0, z1 = max(z - reach, 0), min(z + reach + 1, depth)
    crop = stored.read_crop((z0, y0, x0), (z1, y0 + height, x0 + width))
    save_volume(out / "volumes" / volume["file_name"], Volume(crop, stored.spacing))
    tables["volumes"].append(
        {
            "id": len(tables["volumes"]) + 1,
            "name": volume["name"],
            "file_name": volume["file_name"],
            # The crop is treated as the published volume.
            "geometry": Geometry(crop.shape, stored.spacing).to_dict(),
            "first_slice": 0,
            "patient": volume["name"],
        }
    )
    image_ids: dict[int, int] = {}
    for index, one in sorted(own, key=lambda item: (item[0], item[1]["id"])):
        # A test on key slices uses only the slice of the lesion.
        if not z0 <= index < z1 or (not whole and index != z):
            continue
        left, top, box_width, box_height = one["bbox"]
        edges = np.array([left, top, left + box_width, top + box_height]) - [x0, y0, x0, y0]
        clipped = edges.clip(0, [width, height, width, height])
        if (clipped[2:] - clipped[:2]).min() < 1:
            continue
        if index not in image_ids:
            image_ids[index] = len(tables["images"]) + 1
            tables["images"].append(
                {
                    "id": image_ids[index],
                    "file_name": volume["file_name"],
                    "volume": volume["name"],
                    "volume_id": len(tables["volumes"]),
                    "slice_index": index - z0,
                    "height": height,
                    "width": width,
                    "spacing": list(stored.spacing),
                }
            )
        x1, y1, x2, y2 = clipped.tolist()
        annotation = {
            "id": len(tables["annotations"]) + 1,
            "image_id": image_ids[index],
            "category_id": one["category_id"],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": 0,
            # A source that all configs train on.
            "source": "recist",
            "lesion_type": one.get("lesion_type", -1),
            "published_slice": index - z0,
            "published_bbox": voxels_to_published(clipped)[0].tolist(),
        }
        if one.get("segmentation"):
            mask = coco_mask.decode(one["segmentation"])[y0 : y0 + height, x0 : x0 + width]
            encoded = coco_mask.encode(np.asfortranarray(mask))
            annotation["segmentation"] = dict(encoded, counts=encoded["counts"].decode())
        tables["annotations"].append(annotation)


def crop_scans(
    ann_file: Path,
    unlabeled: Path | None,
    folders: tuple[Path, Path | None],
    out: Path,
    num: int,
    size: int | None,
    seed: int,
) -> Handful:
    """Crop nodules and their surroundings from a store of scans.

    Args:
        ann_file: List of labeled scans.
        unlabeled: List of unlabeled scans, or None.
        folders: Folders of the labeled and unlabeled volumes.
        out: Folder to write to.
        num: Number of labeled crops, each around a different nodule. Twice as many unlabeled crops
            are written.
        size: Edge length of the crops in voxels; None keeps whole scans.
        seed: Seed of the selection.

    Raises:
        InputError: No nodule fits.
    """
    rng = np.random.default_rng(seed)
    scans = read_data_list(ann_file)["data_list"]
    nodules = [
        (scan, one)
        for scan in scans
        for one in scan["instances"]
        if not size or max(np.subtract(one["bbox_3d"][3:], one["bbox_3d"][:3])) <= _LARGEST * size
    ]
    if not nodules:
        raise InputError(
            f"{ann_file}: no nodule fits into a crop of {size} voxels; use a larger --crop"
        )
    entries = []
    for index, i in enumerate(rng.permutation(len(nodules))[:num]):
        scan, nodule = nodules[i]
        center = np.add(nodule["bbox_3d"][:3], nodule["bbox_3d"][3:]) / 2
        entries.append(_crop_scan(scan, folders[0], out, center, size, f"labeled_{index}"))
    spacing = entries[0]["geometry"]["spacing"]
    path = "annotations/handful.json"
    write_json(out / path, data_list_file("rehearsal", spacing, entries, labeled=True))
    if unlabeled is None:
        return Handful(out, path)
    pool = read_data_list(unlabeled)["data_list"]
    entries = []
    for index in range(2 * num):
        scan = pool[rng.integers(len(pool))]
        center = rng.uniform(0.3, 0.7, 3) * scan["geometry"]["shape"][::-1]
        entries.append(_crop_scan(scan, folders[1], out, center, size, f"unlabeled_{index}"))
    other = "annotations/unlabeled.json"
    write_json(out / other, data_list_file("rehearsal", spacing, entries, labeled=False))
    return Handful(out, path, other)


def _crop_scan(
    scan: dict, folder: Path, out: Path, center: np.ndarray, size: int | None, name: str
) -> dict:
    stored = open_volume(folder / (scan["volume"] + SUFFIX))
    shape = tuple(min(size or edge, edge) for edge in stored.shape)
    corner = np.clip(
        np.rint(center - np.array(shape[::-1]) / 2), 0, np.subtract(stored.shape, shape)[::-1]
    ).astype(int)
    start = corner[::-1]
    crop = stored.read_crop(start.tolist(), (start + shape).tolist())
    geometry = Geometry.from_dict(scan["geometry"]).crop(corner, shape)
    save_volume(
        out / "volumes" / (name + SUFFIX),
        Volume.with_geometry(crop, geometry),
        chunk_shape=(32, 64, 64),
    )
    spheres = [[*one["center_world"], one["diameter_mm"]] for one in scan["instances"]]
    spheres = [one for one in spheres if geometry.contains(np.array([one[:3]]))[0]]
    # Two crops of one scan become two scans.
    return scan_entry(name, name, geometry, spheres, scan.get("excluded", []), None)
