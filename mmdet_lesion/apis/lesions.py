"""Lesions of a scan, in voxels of the original array and in the world."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ..io.scans import Scan
from ..structures import Grid, Orientation, Volume
from .predict_boxes import StoreBoxes

__all__ = ["Lesion", "ScanResult", "locate_lesions"]

FORMAT = "1.0"
AXES = "xyz"


@dataclass(frozen=True)
class Lesion:
    """A detected lesion.

    Args:
        id: 1 for the highest score, and so on.
        label: Name of its class.
        score: 0 … 1.
        box_voxels: ``[x1, y1, z1, x2, y2, z2]`` in voxels of the original array; half-open edges:
            voxel i covers ``[i, i + 1)``.
        center_world: ``[x, y, z]`` in mm, LPS.
        bounds_world: ``[x1, y1, z1, x2, y2, z2]`` in mm, LPS, the smallest box along the world's
            axes around the lesion's box.
        size_mm: Edges of the box along the array's x, y and z in mm.
        slice_range: First and last slice (counted from 0 along the scan's slice axis) whose centre
            lies in the box.
        key_slice: The slice that shows it best.
        key_file: File of that slice, for scans of one file a slice.
    """

    id: int
    label: str
    score: float
    box_voxels: tuple[float, ...]
    center_world: tuple[float, ...]
    bounds_world: tuple[float, ...]
    size_mm: tuple[float, ...]
    slice_range: tuple[int, int]
    key_slice: int
    key_file: str | None = None


@dataclass
class ScanResult:
    """What a detector found in a scan, and where it came from.

    Args:
        scan: ``path``, ``kind``, ``series_uid``, ``shape`` (D, H, W), ``spacing``, ``origin``,
            ``direction``, ``slice_axis``.
        model: ``config``, ``checkpoint``, ``sha256``, ``spacing``, ``score_thr``.
        software: ``name``, ``version``.
        created: UTC, ISO 8601.
        fingerprint: Of the input and the settings; a run with the same need not be done again.
        lesions: By falling score.
        warnings: What was odd.
    """

    scan: dict[str, Any]
    model: dict[str, Any]
    software: dict[str, str]
    created: str
    fingerprint: str
    lesions: list[Lesion]
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``lesions.json``."""
        content = asdict(self)
        for lesion in content["lesions"]:
            lesion.update({k: list(v) for k, v in lesion.items() if isinstance(v, tuple)})
        return {"format": FORMAT, **content}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ScanResult:
        """The inverse of :meth:`to_dict`, for content that its schema accepts."""
        values = {key: value for key, value in content.items() if key != "format"}
        values["lesions"] = [
            Lesion(**{k: tuple(v) if isinstance(v, list) else v for k, v in lesion.items()})
            for lesion in content["lesions"]
        ]
        return cls(**values)


def locate_lesions(
    found: StoreBoxes,
    grid: Grid,
    orientation: Orientation,
    scan: Scan,
    classes: tuple[str, ...] = ("lesion",),
) -> list[Lesion]:
    """Carry boxes of the store back to the original array and the world.

    Args:
        found: Boxes in the store's voxels.
        grid: From the turned array to the store.
        orientation: From the original array to the turned one.
        scan: The scan.
        classes: Names of the labels.

    Returns:
        Lesions by falling score; boxes end where the scan ends.
    """
    volume = scan.volume
    size = np.array(volume.shape[::-1], dtype=np.float64)
    boxes = orientation.boxes_to_original(grid.boxes3d_to_array(found.boxes))
    boxes = np.clip(boxes, 0, np.tile(size, 2))
    center, low, high = world_bounds(volume, boxes)
    edges = (boxes[:, 3:] - boxes[:, :3]) * volume.spacing
    axis = orientation.slice_axis
    depth = int(size[axis])
    key = np.rint(grid.slices_to_published(found.key_slices)).astype(int)
    key = orientation.slices_to_original(np.clip(key, 0, depth - 1))
    first = np.ceil(boxes[:, axis] - 0.5).astype(int)
    last = np.ceil(boxes[:, 3 + axis] - 0.5).astype(int) - 1
    # A box between two slice centres lies on its key slice.
    first, last = np.minimum(first, key), np.maximum(last, key)
    order = np.argsort(-found.scores, kind="stable")
    order = order[(edges[order] > 0).all(axis=1)]
    return [
        Lesion(
            id=number,
            label=classes[int(found.labels[i])],
            score=round(float(found.scores[i]), 6),
            box_voxels=_rounded(boxes[i]),
            center_world=_rounded(center[i]),
            bounds_world=_rounded((*low[i], *high[i])),
            size_mm=_rounded(edges[i]),
            slice_range=(int(first[i]), int(last[i])),
            key_slice=int(key[i]),
            key_file=_file_name(scan, axis, int(key[i])),
        )
        for number, i in enumerate(order.tolist(), start=1)
    ]


def world_bounds(volume: Volume, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres and smallest axis-parallel boxes in the world of boxes in voxels.

    Args:
        volume: Where the voxels lie.
        boxes: ``(N, 6)`` half-open edges.

    Returns:
        Three ``(N, 3)`` arrays in mm: centre, lowest and highest corner.
    """
    corners = np.array(np.meshgrid(*[[0, 1]] * 3, indexing="ij")).reshape(3, 8).T
    points = np.where(corners[None] == 0, boxes[:, None, :3], boxes[:, None, 3:])
    # The centre of voxel i lies at edge i + 0.5.
    world = volume.voxel_to_world(points.reshape(-1, 3) - 0.5).reshape(-1, 8, 3)
    return world.mean(axis=1), world.min(axis=1), world.max(axis=1)


def _rounded(values: np.ndarray | tuple) -> tuple[float, ...]:
    # Micrometres; "+ 0.0" makes -0.0 a zero.
    return tuple(round(float(value), 3) + 0.0 for value in values)


def _file_name(scan: Scan, axis: int, index: int) -> str | None:
    if not scan.slice_files or axis != 2 or scan.slice_files[index] is None:
        return None
    return scan.slice_files[index].name
