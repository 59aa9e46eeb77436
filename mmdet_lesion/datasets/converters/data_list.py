"""Lists of scans in mmengine's ``data_list`` format."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ...structures import Geometry

__all__ = ["data_list_file", "scan_entry"]


def scan_entry(
    name: str,
    series_uid: str,
    geometry: Geometry,
    nodules: Sequence[Sequence[float]],
    excluded: Sequence[Sequence[float]],
    subset: int | None,
) -> dict[str, Any]:
    """One scan.

    Args:
        name: Name of its volume in the store.
        series_uid: Its series UID, which submissions name.
        geometry: Geometry of the volume.
        nodules: Rows ``x, y, z, diameter`` in world mm.
        excluded: Irrelevant findings, likewise; a diameter of -1 is not known.
        subset: Official subset, None where there is none.

    Returns:
        ``volume``, ``series_uid``, ``geometry``, ``subset``, ``instances`` (``bbox_3d``: cubes in
        voxels of the store, ``bbox_label``, ``center_world``, ``diameter_mm``) and ``excluded``.
    """
    spheres = np.array(nodules, dtype=np.float64).reshape(-1, 4)
    boxes = geometry.boxes_around_spheres(spheres)
    return {
        "volume": name,
        "series_uid": series_uid,
        "geometry": geometry.to_dict(),
        "subset": subset,
        "instances": [
            {
                "bbox_3d": box.tolist(),
                "bbox_label": 0,
                "center_world": sphere[:3].tolist(),
                "diameter_mm": float(sphere[3]),
            }
            for sphere, box in zip(spheres, boxes)
        ],
        "excluded": [[float(value) for value in row] for row in excluded],
    }


def data_list_file(
    description: str, spacing: Sequence[float], entries: Iterable[dict[str, Any]], labeled: bool
) -> dict[str, Any]:
    """Content of an annotation file.

    Args:
        description: What the list is; beside ``metainfo``, which must be the same in all lists that
            are trained on together.
        spacing: Spacing of the store ``(x, y, z)`` in mm.
        entries: What :func:`scan_entry` returned.
        labeled: Whether the truth is known in training. It is left out where it is not, so that
            nothing can be learned from it by mistake.
    """
    hidden = {} if labeled else {"instances": [], "excluded": []}
    return {
        "info": {"description": description, "coordinates": "store voxels, half-open edges"},
        "metainfo": {"classes": ["lesion"], "spacing": list(spacing)},
        "data_list": [{**entry, "labeled": labeled, **hidden} for entry in entries],
    }
