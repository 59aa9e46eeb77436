"""Page of the HTML report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ...io.scans import Scan
from ...structures import Volume
from ..html import KNOTS, WINDOWS, choose_window, template_environment, write_page
from .facts import identity, slice_labels
from .voxels import (
    KEY_QUALITY,
    compress_slices,
    exact_blocks,
    hu_statistics,
    projections,
    reduce_volume,
    size_limit,
)

__all__ = ["write_report"]

_TEMPLATES = Path(__file__).with_name("templates")
#: Characters of the page without any voxels, and of each lesion.
_PAGE_SIZE, _LESION_SIZE = 120_000, 3_000


def write_report(path: str | os.PathLike, scan: Scan, content: dict[str, Any]) -> None:
    """Write the report of a scan.

    Args:
        path: HTML file to write.
        scan: The scan.
        content: Content of ``lesions.json``.
    """
    symmetry = scan.volume.geometry.symmetry_to_patient()
    volume = scan.volume.permute(symmetry)
    lesions = content["lesions"]
    boxes = np.array([lesion["box_voxels"] for lesion in lesions], dtype=np.float64)
    boxes = symmetry.apply_boxes(boxes.reshape(-1, 6), scan.volume.shape)
    # source_index is its own inverse, since it is the identity or a flip.
    numbers = [symmetry.source_index(0, z, scan.volume.shape) for z in range(volume.shape[0])]
    labels = slice_labels(scan, symmetry.axes[0])
    keys = [numbers[lesion["key_slice"]] for lesion in lesions]
    viewer, compression = _viewer(volume, boxes, keys, numbers)
    for shown, lesion, box, key in zip(viewer["lesions"], lesions, boxes, keys):
        shown.update(
            id=lesion["id"],
            score=lesion["score"],
            window=choose_window(volume.array[key], box[[0, 1, 3, 4]]),
        )
    data = dict(
        viewer,
        labels=[labels[z] for z in viewer["names"]],
        windows=WINDOWS,
        window=choose_window(volume.array[volume.shape[0] // 2]),
        threshold=content["model"]["score_thr"],
        review=dict(
            fingerprint=content["fingerprint"],
            scan={key: content["scan"][key] for key in ("path", "series_uid")},
            lesions=lesions,
        ),
    )
    template = template_environment(_TEMPLATES).get_template("report.html")
    page = template.render(
        **dict(content, lesions=_cards(volume, lesions, boxes, labels)),
        data=data,
        views=projections(volume, boxes),
        compression=compression,
        identity=identity(scan.header),
        name=Path(content["scan"]["path"]).name,
    )
    write_page(path, page)


def _cards(
    volume: Volume, lesions: list[dict[str, Any]], boxes: np.ndarray, labels: list[str]
) -> list[dict[str, Any]]:
    """Return the lesions with what only the list of the page shows."""
    return [
        dict(
            lesion,
            place=_place(lesion["center_world"]),
            sides=((box[3:] - box[:3]) * volume.spacing).tolist(),
            hu=hu_statistics(volume.array, box),
            key_label=labels[lesion["key_slice"]],
        )
        for lesion, box in zip(lesions, boxes)
    ]


def _viewer(
    volume: Volume, boxes: np.ndarray, keys: list[int], numbers: list[int]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the voxels that the page shows, and how they are compressed.

    Args:
        volume: Volume with the axes of the patient.
        boxes: Boxes in its voxels, shape (N, 6).
        keys: Key slice of each box.
        numbers: Index of each slice in the scan.
    """
    reduced, scale, shift = reduce_volume(volume)
    boxes = (boxes.reshape(-1, 2, 3) * scale + shift).reshape(-1, 6)
    depth = reduced.shape[0]
    shown = [min(round(key * scale[2]), depth - 1) for key in keys]
    limit = size_limit(reduced.shape) - _PAGE_SIZE - _LESION_SIZE * len(boxes)
    blocks = exact_blocks(reduced.array, boxes, shown, limit)
    used = sum(len(block["data"]) for block in blocks if block)
    slices = compress_slices(reduced.array, limit - used, shown)
    geometry = reduced.geometry
    # Columns are the steps of x, y and z in mm; voxel centers are at i + 0.5.
    steps = geometry.matrix * geometry.spacing
    viewer = dict(
        slices=slices.images,
        names=numbers[:: round(1 / scale[2])],
        size=reduced.shape[::-1],
        spacing=reduced.spacing,
        # Lesions are shown with at least one pixel per voxel of the scan.
        finest=min(volume.spacing[:2]),
        world=[*steps.ravel().tolist(), *(geometry.origin - steps @ (0.5, 0.5, 0.5)).tolist()],
        knots=KNOTS,
        lesions=[
            dict(box=np.round(box, 3).tolist(), key=key, block=block)
            for box, key, block in zip(boxes, shown, blocks)
        ],
    )
    compression = dict(
        quality=slices.quality,
        smoothing=slices.smoothing,
        fine=slices.fine if slices.quality < KEY_QUALITY else 0,
        fine_quality=KEY_QUALITY,
        errors=slices.errors,
        step=round(1 / scale[2]),
        factor=round(1 / scale[0]),
        exact=sum(block is not None for block in blocks),
    )
    return viewer, compression


def _place(center: list[float]) -> list[tuple[str, str]]:
    """Format a world position with anatomical directions."""
    signs = (("R", "L"), ("A", "P"), ("I", "S"))
    return [(sign[value >= 0], f"{abs(value):.0f}") for sign, value in zip(signs, center)]
