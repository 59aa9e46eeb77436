"""COCO files over the volumes of the store."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..io import CocoBuilder, GroundTruth, Problem, StoredEntry
from ..structures import Geometry
from .annotation_rows import Annotation, check_box

__all__ = ["VolumeIndex", "key_slice_file", "whole_volume_file"]

# A box of the complete truth with this IoU with an annotation is the annotated lesion itself.
_SAME_LESION = 0.5


class VolumeIndex:
    """Finds volumes by name, and by series and slice.

    Args:
        records: What :func:`~.series.convert_series` returned for every series.
    """

    def __init__(self, records: Iterable[Mapping[str, Any]]) -> None:
        self._by_name: dict[str, StoredEntry] = {}
        self._by_series: dict[str, list[StoredEntry]] = {}
        for record in records:
            entries = [
                StoredEntry(
                    v["name"],
                    v["file_name"],
                    v["first_slice"],
                    Geometry.from_dict(v["geometry"]),
                    Geometry.from_dict(v["published_geometry"]),
                    v.get("masks", {}),
                )
                for v in record["volumes"]
            ]
            self._by_series[record["folder"]] = entries
            self._by_name.update((entry.name, entry) for entry in entries)

    def __len__(self) -> int:
        return len(self._by_name)

    def by_name(self, name: str) -> StoredEntry | None:
        """The volume of that name."""
        return self._by_name.get(name)

    def by_slice(self, folder: str, number: int) -> StoredEntry | None:
        """The volume of a series that holds a slice."""
        entries = self._by_series.get(folder, [])
        return next((e for e in entries if e.first_slice <= number <= e.last_slice), None)


@dataclass(frozen=True)
class _Placed:
    """A annotation in its volume, with the box that is left of it inside the image."""

    entry: StoredEntry
    z: int
    box: tuple[float, float, float, float]
    annotation: Annotation


def _place(annotation: Annotation, index: VolumeIndex) -> tuple[_Placed | None, list[Problem]]:
    row = annotation.row
    entry = index.by_slice(row.folder, row.key_slice)
    if entry is None:
        text = f"the key slice {row.file_name} is in no volume"
        return None, [annotation.problem("unusable key slice", text)]
    _, height, width = entry.published.shape
    if row.image_size != (width, height):
        text = f"{row.file_name} is {width} x {height}; Image_size is {list(row.image_size)}"
        return None, [annotation.problem("image size", text)]
    box, text = check_box(row.box, width, height)
    if box is None:
        return None, [annotation.problem("bad box", f"{row.file_name}: {text}")]
    placed = _Placed(entry, row.key_slice - entry.first_slice, box, annotation)
    if text:
        problem = annotation.problem(
            "clipped box", f"{row.file_name}: {text}", f"box clipped to {list(box)}"
        )
        return placed, [problem]
    return placed, []


def _overlaps(box: np.ndarray, others: list[np.ndarray]) -> bool:
    """Whether a box (edges) and any of the others have an IoU of at least ``_SAME_LESION``."""
    if not others:
        return False
    boxes = np.stack(others)
    inner = np.minimum(box[2:], boxes[:, 2:]) - np.maximum(box[:2], boxes[:, :2])
    shared = inner.clip(min=0).prod(axis=1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + areas - shared
    return bool((shared >= _SAME_LESION * union).any())


def key_slice_file(
    description: str,
    annotations: Iterable[Annotation],
    index: VolumeIndex,
    full: GroundTruth | None = None,
) -> tuple[CocoBuilder, list[Problem]]:
    """The key slices of a split with their annotations.

    Args:
        description: For the file's ``info``.
        annotations: The split's rows.
        index: The converted volumes.
        full: Complete truth; its boxes on the key slices are added with the source ``full`` unless
            a annotation or an earlier box on the same slice has an IoU of 0.5 or more with them.

    Returns:
        The file's content and the rows' problems.
    """
    problems: list[Problem] = []
    placed: list[_Placed] = []
    for annotation in annotations:
        found, trouble = _place(annotation, index)
        problems += trouble
        if found:
            placed.append(found)
    images: dict[tuple[str, int], list[_Placed]] = defaultdict(list)
    for item in sorted(placed, key=lambda p: (p.entry.name, p.z)):
        images[item.entry.name, item.z].append(item)
    builder = CocoBuilder(description)
    for (name, z), items in images.items():
        entry = items[0].entry
        taken = []
        for item in items:
            row = item.annotation.row
            recist = row.measurement if all(map(math.isfinite, row.measurement)) else ()
            mask = entry.masks.get(item.annotation.key)
            builder.annotate(entry, z, item.box, "recist", row.lesion_type, recist, mask)
            taken.append(entry.boxes_to_store([item.box])[0])
        for box in (full or {}).get(name, {}).get(z, ()):
            usable, _ = check_box(
                tuple(box.tolist()), entry.published.shape[2], entry.published.shape[1]
            )
            edges = entry.boxes_to_store([box])[0]
            if usable is not None and not _overlaps(edges, taken):
                builder.annotate(entry, z, usable, "full")
                taken.append(edges)
    return builder, problems


def whole_volume_file(
    description: str, file: str, truth: GroundTruth, index: VolumeIndex
) -> tuple[CocoBuilder, list[Problem]]:
    """All slices of completely labeled volumes.

    Args:
        description: For the file's ``info``.
        file: Name of the truth's file, for reports.
        truth: Complete lesion boxes by volume and slice.
        index: The converted volumes.

    Returns:
        The file's content, and problems of volumes that are missing and boxes of no use.
    """
    problems = []
    builder = CocoBuilder(description)
    for name in sorted(truth):
        entry = index.by_name(name)
        if entry is None:
            text = f"{name} is not among the converted volumes"
            problems.append(Problem(file, None, text, "volume left out", "missing volume"))
            continue
        depth, height, width = entry.published.shape
        for z in range(depth):
            builder.image(entry, z)
        for z in sorted(truth[name]):
            if not 0 <= z < depth:
                text = f"{name} has boxes on slice {z}; expected 0 to {depth - 1}"
                problems.append(Problem(file, None, text, "boxes skipped", "bad slice"))
                continue
            for box in truth[name][z]:
                usable, text = check_box(tuple(box.tolist()), width, height)
                if usable is not None:
                    builder.annotate(entry, z, usable, "full")
                if text:
                    action = "box skipped" if usable is None else f"box clipped to {list(usable)}"
                    kind = "bad box" if usable is None else "clipped box"
                    where = f"{name}, slice {z}: {text}"
                    problems.append(Problem(file, None, where, action, kind))
    return builder, problems
