"""Detected lesions in voxels of the original array and in world coordinates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.structures import InstanceData

from ..io.scans import Scan
from ..structures import Geometry

__all__ = ["Lesion", "ScanResult", "locate_lesions"]

FORMAT = "1.0"
AXES = "xyz"


@dataclass(frozen=True)
class Lesion:
    """A detected lesion.

    Args:
        id: Rank by score, from 1.
        label: Name of the class.
        score: Score within 0 … 1.
        box_voxels: Box ``[x1, y1, z1, x2, y2, z2]`` in voxels of the original array, half-open:
            voxel i covers ``[i, i + 1)``.
        center_world: Center ``[x, y, z]`` of the box in mm, LPS.
        bounds_world: Smallest box ``[x1, y1, z1, x2, y2, z2]`` along the world axes that contains
            the lesion's box, in mm, LPS.
        size_mm: Edges of the box along x, y and z of the original array in mm.
        slice_range: First and last slice (counted from 0 along the scan's slice axis) whose center
            is in the box.
        key_slice: Slice that shows the lesion best.
        key_file: File of the key slice, for scans with one file per slice.
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
    """Detected lesions of a scan, with the scan, the model and the settings.

    Args:
        scan: ``path``, ``kind``, ``series_uid``, ``shape`` (D, H, W), ``spacing``, ``origin``,
            ``direction``, ``slice_axis``.
        model: ``config``, ``checkpoint``, ``sha256``, ``spacing``, ``score_thr``, ``nms``,
            ``notice``, and for several models or views ``ensemble``.
        software: ``name``, ``version``.
        created: Time in UTC, ISO 8601.
        fingerprint: Hash of inputs and settings; a matching result is reused.
        lesions: Lesions in descending order of score.
        warnings: Warnings about the scan and its results.
        lesions_without_voxels: Ids of lesions that have no voxel in the label map, or None if it
            was not written.
    """

    scan: dict[str, Any]
    model: dict[str, Any]
    software: dict[str, str]
    created: str
    fingerprint: str
    lesions: list[Lesion]
    warnings: list[str] = field(default_factory=list)
    lesions_without_voxels: list[int] | None = None

    @property
    def notice(self) -> str | None:
        """What every export has to say about the model, or None."""
        return self.model.get("notice")

    def to_dict(self) -> dict[str, Any]:
        """Convert the result to the content of ``lesions.json``."""
        content = asdict(self)
        for lesion in content["lesions"]:
            lesion.update({k: list(v) for k, v in lesion.items() if isinstance(v, tuple)})
        return {"format": FORMAT, **content}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> ScanResult:
        """Convert content of ``lesions.json`` that matches the schema to a result."""
        values = {key: value for key, value in content.items() if key != "format"}
        values["lesions"] = [_lesion(lesion) for lesion in content["lesions"]]
        return cls(**values)


def _lesion(content: dict[str, Any]) -> Lesion:
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }
    return Lesion(**values)


def locate_lesions(
    found: InstanceData,
    resampled: Geometry,
    permuted: Geometry,
    scan: Scan,
    classes: tuple[str, ...] = ("lesion",),
    suppress: Callable[..., torch.Tensor] | None = None,
) -> list[Lesion]:
    """Convert boxes of the resampled volume to voxels of the scan and to the world.

    Args:
        found: ``bboxes``, ``scores``, ``labels`` and ``key_slices`` in voxels of the resampled
            volume.
        resampled: Geometry of the resampled volume.
        permuted: Geometry before resampling, with the axes permuted and flipped to those of the
            patient.
        scan: The scan.
        classes: Class names in the order of the labels.
        suppress: Selects the lesions to keep by their clipped boxes in mm along the axes of the
            scan, scores and labels, such as :class:`~mmdet_lesion.models.task_modules.NMS3D`; None
            keeps all.

    Returns:
        Lesions in descending order of score, with boxes clipped to the scan. Lesions of equal
        scores are in the order of ``found``.
    """
    geometry = scan.volume.geometry
    symmetry = geometry.symmetry_to_patient()
    boxes = resampled.boxes_to(permuted, found.bboxes.numpy())
    boxes = symmetry.inverse.apply_boxes(boxes, permuted.shape)
    boxes = np.clip(boxes, 0, np.tile(geometry.size, 2))
    corners = geometry.corners_to_world(boxes)
    center, low, high = corners.mean(axis=1), corners.min(axis=1), corners.max(axis=1)
    edges = (boxes[:, 3:] - boxes[:, :3]) * geometry.spacing
    # The array's axis (x, y, z) along which axial slices are stacked.
    axis = 2 - symmetry.axes[0]
    key = np.rint(resampled.slices_to(permuted, found.key_slices.numpy())).astype(int)
    key = np.clip(key, 0, permuted.shape[0] - 1)
    key = symmetry.source_index(0, key, geometry.shape)
    first = np.ceil(boxes[:, axis] - 0.5).astype(int)
    last = np.ceil(boxes[:, 3 + axis] - 0.5).astype(int) - 1
    # A box between the centers of two slices is assigned to its key slice.
    first, last = np.minimum(first, key), np.maximum(last, key)
    order = np.argsort(-found.scores.numpy(), kind="stable")
    order = order[(edges[order] > 0).all(axis=1)]
    if suppress is not None:
        boxes_mm = torch.from_numpy(boxes[order] * np.tile(geometry.spacing, 2))
        order = order[suppress(boxes_mm, found.scores[order], found.labels[order]).numpy()]
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


def _rounded(values: np.ndarray | tuple) -> tuple[float, ...]:
    # Rounded to micrometers; "+ 0.0" converts -0.0 to 0.0.
    return tuple(round(float(value), 3) + 0.0 for value in values)


def _file_name(scan: Scan, axis: int, index: int) -> str | None:
    if not scan.slice_files or axis != 2:
        return None
    file = scan.slice_files[index]
    return None if file is None else file.name
