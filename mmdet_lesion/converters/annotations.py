"""COCO annotations of stored volumes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from ..io import CocoBuilder, GroundTruth, Problem, StoredEntry
from ..structures import Geometry, Tracklets
from .annotation_rows import Annotation, check_box

__all__ = ["VolumeIndex", "add_tracklets", "key_slice_file", "whole_volume_file"]

# A ground-truth box and an annotation with this IoU are the same lesion.
_SAME_LESION = 0.5


class VolumeIndex:
    """Index of the volumes by name, and by series and slice.

    Args:
        records: Records of :func:`~.series.convert_series` of all series.
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
        """Return the volume of a name, or None."""
        return self._by_name.get(name)

    def by_slice(self, folder: str, number: int) -> StoredEntry | None:
        """Return the volume of a series that contains a slice, or None."""
        entries = self._by_series.get(folder, [])
        return next((e for e in entries if e.first_slice <= number <= e.last_slice), None)


@dataclass(frozen=True)
class _Placed:
    """An annotation, its volume, and its box clipped to the image."""

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
        text = (
            f"{row.file_name} has Image_size {list(row.image_size)}; expected {[width, height]} as "
            "in the PNG"
        )
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
    """Return whether a box (edges) has an IoU of ``_SAME_LESION`` or more with any other."""
    boxes = np.stack([box, *others])
    boxes[:, 2:] -= boxes[:, :2]
    ious = coco_mask.iou(boxes[:1], boxes[1:], [0] * len(others))
    return bool(np.greater_equal(ious, _SAME_LESION).any())


def key_slice_file(
    description: str,
    annotations: Iterable[Annotation],
    index: VolumeIndex,
    full: GroundTruth | None = None,
) -> tuple[CocoBuilder, list[Problem]]:
    """Build the annotation file of a split from its key slices.

    Args:
        description: Description in the ``info`` of the file.
        annotations: Rows of the split.
        index: The converted volumes.
        full: Complete ground truth. Its boxes on the key slices are added with the source ``full``
            unless an annotation or an earlier box on the same slice has an IoU of 0.5 or more with
            them.

    Returns:
        The content of the file, and the problems of the rows.
    """
    problems: list[Problem] = []
    placed: list[_Placed] = []
    for annotation in annotations:
        item, found = _place(annotation, index)
        problems += found
        if item:
            placed.append(item)
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
            _, height, width = entry.published.shape
            valid, _ = check_box(tuple(box.tolist()), width, height)
            edges = entry.boxes_to_store([box])[0]
            if valid is not None and not _overlaps(edges, taken):
                builder.annotate(entry, z, valid, "full")
                taken.append(edges)
    return builder, problems


def whole_volume_file(
    description: str, file: str, truth: GroundTruth, index: VolumeIndex
) -> tuple[CocoBuilder, list[Problem]]:
    """Build the annotation file of completely labeled volumes with all their slices.

    Args:
        description: Description in the ``info`` of the file.
        file: Name of the ground-truth file, for reports.
        truth: Boxes of all lesions by volume and slice.
        index: The converted volumes.

    Returns:
        The content of the file, and the problems of missing volumes and invalid boxes.
    """
    problems = []
    builder = CocoBuilder(description)
    for name in sorted(truth):
        entry = index.by_name(name)
        if entry is None:
            text = f"{name} is not among the converted volumes"
            problems.append(Problem(file, None, text, "volume skipped", "missing volume"))
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
                valid, text = check_box(tuple(box.tolist()), width, height)
                if valid is not None:
                    builder.annotate(entry, z, valid, "full")
                if text:
                    action = "box skipped" if valid is None else f"box clipped to {list(valid)}"
                    kind = "bad box" if valid is None else "clipped box"
                    where = f"{name}, slice {z}: {text}"
                    problems.append(Problem(file, None, where, action, kind))
    return builder, problems


def add_tracklets(
    builder: CocoBuilder,
    file: str,
    found: Mapping[str, Tracklets],
    source: str,
    index: VolumeIndex,
) -> list[Problem]:
    """Add the tracklets of a file in Lesion Harvester's format.

    Boxes are added on slices that are images already and on the best slice of each tracklet.

    Args:
        builder: The annotation file.
        file: Name of the pickle, for reports and the ``lesion_id``.
        found: Tracklets by volume.
        source: Source of the annotations.
        index: The converted volumes.

    Returns:
        The problems of missing volumes, slices and boxes outside of their volume.
    """
    problems = []
    for name in sorted(found):
        entry = index.by_name(name)
        if entry is None:
            text = f"{name} is not among the converted volumes"
            problems.append(Problem(file, None, text, "volume skipped", "missing volume"))
            continue
        depth, height, width = entry.published.shape
        kept = []
        for number, boxes in enumerate(found[name].to_harvester()):
            if not all(0 <= z < depth for z, _ in boxes):
                text = f"{name}, tracklet {number} has a slice beyond 0 to {depth - 1}"
                problems.append(Problem(file, None, text, "tracklet skipped", "bad slice"))
                continue
            valid = []
            for z, (*row, score) in boxes:
                box, text = check_box(tuple(row), width, height)
                if box is None:
                    text = f"{name}, tracklet {number}, slice {z}: {text}"
                    problems.append(Problem(file, None, text, "box skipped", "bad box"))
                else:
                    valid.append((z, [*box, score]))
            if valid:
                kept.append(valid)
        prefix = f"{file.partition('.')[0]}_"
        builder.annotate_tracklets(entry, Tracklets.from_harvester(kept), source, prefix)
    return problems
