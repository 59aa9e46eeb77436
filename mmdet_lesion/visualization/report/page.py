"""Page of the HTML report."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...io.atomic import atomic_write
from ...structures import Volume
from .pictures import lesion_pictures, projections, viewer_slices
from .windows import KNOTS, WINDOWS

__all__ = ["write_report"]

_TEMPLATES = Path(__file__).with_name("templates")


def write_report(path: str | os.PathLike, volume: Volume, content: dict[str, Any]) -> None:
    """Write the report of a scan.

    Args:
        path: HTML file to write.
        volume: The scan in HU.
        content: Content of ``lesions.json``.
    """
    symmetry = volume.geometry.symmetry_to_patient()
    permuted = volume.permute(symmetry)
    lesions = content["lesions"]
    boxes = np.array([lesion["box_voxels"] for lesion in lesions], dtype=np.float64)
    boxes = symmetry.apply_boxes(boxes.reshape(-1, 6), volume.shape)
    # source_index is its own inverse, since it is the identity or a flip.
    numbers = [symmetry.source_index(0, z, volume.shape) for z in range(permuted.shape[0])]
    keys = [numbers[lesion["key_slice"]] for lesion in lesions]
    for lesion, box, key in zip(lesions, boxes, keys):
        lesion.update(
            pictures=lesion_pictures(permuted, box, key),
            place=_place(lesion["center_world"]),
            diameter=max(lesion["size_mm"]),
        )
    viewer = viewer_slices(permuted, set(keys))
    shape = np.tile(permuted.shape[::-1], 2)
    data = dict(
        viewer=dict(
            viewer,
            # Index in the file and world z in mm of each slice.
            names=[numbers[z] for z in viewer["numbers"]],
            places=[round(z, 1) for z in _levels(permuted)[viewer["numbers"]].tolist()],
        ),
        lesions=[
            dict(id=lesion["id"], score=lesion["score"], window=lesion["pictures"]["window"],
                 key=key, box=np.round(box / shape, 5).tolist(), range=[box[2], box[5]])
            for lesion, box, key in zip(lesions, boxes, keys)
        ],
        windows=WINDOWS,
        knots=KNOTS,
        threshold=content["model"]["score_thr"],
    )  # fmt: skip
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The keyboard shortcuts 1, 2 and 3 follow the order of the HU windows.
    environment.policies["json.dumps_kwargs"] = dict(sort_keys=False)
    page = environment.get_template("report.html").render(
        **content,
        data=data,
        views=projections(permuted, boxes),
        numbers=numbers,
        name=Path(content["scan"]["path"]).name,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")


def _levels(volume: Volume) -> np.ndarray:
    """Return the world z of the slice centers in mm, shape (D,)."""
    depth, rows, columns = volume.shape
    points = np.zeros((depth, 3))
    points[:] = (columns / 2, rows / 2, 0.5)
    points[:, 2] += np.arange(depth)
    return volume.geometry.points_to_world(points)[:, 2]


def _place(center: list[float]) -> list[tuple[str, str]]:
    """Format a world position with anatomical directions."""
    signs = (("R", "L"), ("A", "P"), ("I", "S"))
    return [(sign[value >= 0], f"{abs(value):.0f}") for sign, value in zip(signs, center)]
