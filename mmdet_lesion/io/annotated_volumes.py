"""Annotation files by volume in published coordinates, and the addition of tracklets to them."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..structures import Geometry
from ..structures.tracklets import Tracklets
from .coco import LESION_SOURCES, CocoBuilder, StoredEntry, read_annotation_file

__all__ = ["AnnotatedVolumes", "LesionRows"]


@dataclass(frozen=True)
class LesionRows:
    """Boxes of lesions of a volume in published coordinates.

    Args:
        rows: ``[z, x1, y1, x2, y2]``, shape (n, 5), float64.
        ids: Lesion of each box, or None for a box that is a lesion of its own, n values.
        sources: Source of each box, n values.
    """

    rows: np.ndarray
    ids: list[Any]
    sources: list[str]

    def of(self, sources: Iterable[str]) -> LesionRows:
        """Return the boxes of some sources."""
        wanted = set(sources)
        kept = [i for i, source in enumerate(self.sources) if source in wanted]
        return LesionRows(
            self.rows[kept], [self.ids[i] for i in kept], [self.sources[i] for i in kept]
        )


class AnnotatedVolumes:
    """Content of an annotation file, to which boxes can be added.

    Args:
        path: The annotation file.
        volumes: Folder of the stored volumes, by default ``volumes`` beside the folder of the file.

    Raises:
        InputError: As for :func:`.coco.read_annotation_file`.
    """

    def __init__(self, path: str | os.PathLike, volumes: str | os.PathLike | None = None) -> None:
        self.path = path
        self.content = read_annotation_file(path, volumes)
        self.entries: dict[str, StoredEntry] = {}
        for volume in self.content["volumes"]:
            geometry = Geometry.from_dict(volume["geometry"])
            published = volume.get("published_geometry")
            self.entries[volume["name"]] = StoredEntry(
                volume["name"],
                volume["file_name"],
                volume.get("first_slice", 0),
                geometry,
                geometry if published is None else Geometry.from_dict(published),
                patient=volume.get("patient"),
            )
        self._annotations: dict[str, list[dict]] = {name: [] for name in self.entries}
        volume_of = {image["id"]: image["volume"] for image in self.content["images"]}
        self.names = list(dict.fromkeys(volume_of.values()))
        for annotation in self.content["annotations"]:
            self._annotations[volume_of[annotation["image_id"]]].append(annotation)

    def lesions(self, name: str) -> LesionRows:
        """Return the boxes of the lesions of a volume, without hard negatives."""
        found = [one for one in self._annotations[name] if one["source"] in LESION_SOURCES]
        rows = [[one["published_slice"], *one["published_bbox"]] for one in found]
        return LesionRows(
            np.array(rows, dtype=np.float64).reshape(-1, 5),
            [one.get("lesion_id") for one in found],
            [one["source"] for one in found],
        )

    def with_tracklets(
        self,
        found: Mapping[str, Tracklets],
        entries: Mapping[str, StoredEntry],
        source: str,
        prefix: str,
        info: Mapping[str, Any],
        all_slices: bool = False,
    ) -> dict[str, Any]:
        """Add the boxes of tracklets as annotations.

        Args:
            found: Tracklets in published coordinates by volume.
            entries: These volumes, some of which the file may lack.
            source: Source of the new annotations.
            prefix: Start of their ``lesion_id``, as for :meth:`CocoBuilder.annotate_tracklets`.
            info: Entries of ``info`` of the file.
            all_slices: As for :meth:`CocoBuilder.annotate_tracklets`.

        Returns:
            Content of the new file. Existing entries are unchanged.
        """
        builder = CocoBuilder.from_content(copy.deepcopy(self.content), info)
        for name, tracklets in found.items():
            entry = self.entries.get(name, entries[name])
            builder.annotate_tracklets(entry, tracklets, source, prefix, all_slices)
        return builder.to_dict()
