"""Views of a volume for test-time augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from mmengine.structures import InstanceData
from torch import Tensor

from ...structures import CUBE_SYMMETRIES, Body, CubeSymmetry
from .volume_detector import VolumeReader

__all__ = ["View", "symmetries_of"]


@dataclass(frozen=True)
class View:
    """A symmetry of a volume and a scale of its slices; by default the volume as it is.

    Args:
        symmetry: The symmetry; for detectors on slices, one that does not move slices.
        scale: Factor by which slices are resized; 1 for 3D detectors.
    """

    symmetry: CubeSymmetry = CubeSymmetry()
    scale: float = 1.0

    def apply(self, packed: dict[str, Any]) -> dict[str, Any]:
        """Return the view of a packed sample, which is not changed.

        Args:
            packed: ``inputs``, shape (D, H, W) or (1, D, H, W), and ``data_samples``.
        """
        if self == View():
            return packed
        sample = packed["data_samples"].clone()
        volume: Tensor = packed["inputs"]
        if self.scale != 1:
            height, width = volume.shape[-2:]
            size = (round(height * self.scale), round(width * self.scale))
            # As OpenCV resizes the images of a training.
            volume = F.interpolate(volume[None], size, mode="bilinear", align_corners=False)[0]
            scale_factor = sample.metainfo.get("scale_factor", (1.0, 1.0))
            ratios = (size[1] / width, size[0] / height)
            sample.set_metainfo(
                dict(scale_factor=tuple(a * b for a, b in zip(scale_factor, ratios)))
            )
        volume = self.symmetry.apply(volume)
        if "img_shape" in sample.metainfo:
            axes = len(sample.metainfo["img_shape"])
            sample.set_metainfo(dict(img_shape=tuple(volume.shape[-axes:])))
        return {**packed, "inputs": volume, "data_samples": sample}

    def reader(self, read: VolumeReader) -> VolumeReader:
        """Return a reader of the view of what another reader reads."""
        return lambda start, stop: self.apply(read(start, stop))

    def body(self, body: Body | None) -> Body | None:
        """Return where to search in the view, given where to search in the volume."""
        if body is None or self.symmetry == CubeSymmetry():
            return body
        return body.transformed(self.symmetry)

    def restore(self, instances: InstanceData, size: Sequence[int]) -> InstanceData:
        """Map detections in the view back to the volume.

        Args:
            instances: ``bboxes`` in pixels of the slices before resizing, shape (N, 4), or in
                voxels, shape (N, 6), and what else detections have.
            size: Size (D, H, W) of the volume, before resizing.
        """
        if self.symmetry == CubeSymmetry():
            return instances
        restored = instances.clone()
        boxes: Tensor = instances.bboxes
        columns = [0, 1, 2, 3, 4, 5] if boxes.shape[1] == 6 else [0, 1, 3, 4]
        corners = boxes.new_zeros(len(boxes), 6)
        corners[:, columns] = boxes
        corners = self.symmetry.inverse.apply_boxes(corners, self.symmetry.size(size))
        restored.bboxes = corners[:, columns]
        return restored


def symmetries_of(spacing: Sequence[float], num: int) -> list[CubeSymmetry]:
    """Return symmetries of the cube that keep the voxel spacing, starting with the identity.

    The first 8 are flips. They are followed by those that exchange x and y (16 in all), and by
    those that exchange other axes (48 in all).

    Args:
        spacing: Spacing ``(x, y, z)`` in mm. 0 stands for an unknown one, which differs from all.
        num: Largest number of symmetries.
    """
    edges = [step or -1 - axis for axis, step in enumerate(spacing[::-1])]
    keeping = [
        symmetry
        for symmetry in CUBE_SYMMETRIES
        if all(edges[old] == edges[new] for new, old in enumerate(symmetry.axes))
    ]
    return keeping[:num]
