"""Annotation files of scans with masks, from the volumes of :func:`~.mask_task.convert_case`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..io import CocoBuilder, StoredEntry, data_list_file, scan_entry
from ..structures import Geometry, published_to_voxels
from .luna16_splits import ranked

__all__ = ["box_sides", "slice_file", "volume_list"]

_Volume = Mapping[str, Any]


def slice_file(
    description: str, volumes: Sequence[_Volume], every_slice: bool
) -> tuple[dict[str, Any], dict[str, int]]:
    """Build a COCO file with one box and mask of each lesion on each of its slices.

    Args:
        description: Description of the file.
        volumes: The volumes.
        every_slice: Whether to list all slices. Otherwise, the slices with lesions are listed, and
            in total as many slices of scans without a lesion at most, at equal distances.

    Returns:
        The content of the file, and the numbers of ``images`` and ``annotations``.
    """
    builder = CocoBuilder(description)
    healthy = sum(not volume["lesions"] for volume in volumes)
    budget = sum(len(_lesion_slices(volume)) for volume in volumes)
    for volume in volumes:
        entry = StoredEntry(
            volume["name"],
            volume["file_name"],
            0,
            Geometry.from_dict(volume["geometry"]),
            Geometry.from_dict(volume["published_geometry"]),
            patient=volume["patient"],
        )
        depth = entry.published.shape[0]
        slices = _lesion_slices(volume)
        if every_slice:
            slices = list(range(depth))
        elif not slices:
            number = min(depth, max(1, budget // healthy))
            slices = ((np.arange(number) + 0.5) * depth / number).astype(int).tolist()
        for z in slices:
            builder.image(entry, z)
        for lesion in volume["lesions"]:
            for one in lesion["slices"]:
                box, number = tuple(one["box"]), lesion["lesion_id"]
                builder.annotate(entry, one["z"], box, "full", mask=one["mask"], lesion_id=number)
    counts = builder.counts
    return builder.to_dict(), {key: counts[key] for key in ("images", "annotations")}


def _lesion_slices(volume: _Volume) -> list[int]:
    return sorted({one["z"] for lesion in volume["lesions"] for one in lesion["slices"]})


def volume_list(
    description: str,
    spacing: Sequence[float],
    volumes: Iterable[_Volume],
    labeled: bool,
    seed: int,
) -> dict[str, Any]:
    """Build a data list with one 3D box of each lesion.

    Args:
        description: Description of the list.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        volumes: The volumes.
        labeled: Whether all lesions are known.
        seed: Seed of the order. The first scans of the list are a random subset.
    """
    by_name = {volume["name"]: volume for volume in volumes}
    entries = []
    for name in ranked(by_name, seed):
        volume = by_name[name]
        spheres = [(*one["center_world"], one["diameter_mm"]) for one in volume["lesions"]]
        geometry = Geometry.from_dict(volume["geometry"])
        entry = scan_entry(name, volume["series_uid"], geometry, spheres, [], None)
        for instance, lesion in zip(entry["instances"], volume["lesions"]):
            instance.update(bbox_3d=lesion["bbox_3d"], lesion_id=lesion["lesion_id"])
        entries.append({**entry, "patient": volume["patient"]})
    return data_list_file(description, spacing, entries, labeled)


def box_sides(volumes: Iterable[_Volume]) -> list[float]:
    """Return the side of a square or cube of the size of each box, in pixels of the store."""
    sides: list[float] = []
    for volume in volumes:
        stored, published = (
            Geometry.from_dict(volume[key]) for key in ("geometry", "published_geometry")
        )
        for lesion in volume["lesions"]:
            if "slices" in lesion:
                rows = [one["box"] for one in lesion["slices"]]
                boxes = published.boxes_to(stored, published_to_voxels(rows))
                sides += np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1)).tolist()
            else:
                box = np.array(lesion["bbox_3d"])
                sides.append(float(np.cbrt((box[3:] - box[:3]).prod())))
    return sides
