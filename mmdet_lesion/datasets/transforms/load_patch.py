"""A crop of a volume, of which little more than the crop is read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Geometry

from .hu_window import apply_hu_window, check_hu_window
from .stored_volume import open_stored_volume

__all__ = ["LoadPatch", "boxes_in_crop"]

AIR = -1024
# A box beside the crop is avoided where one of so many places does.
_TRIES = 16


def boxes_in_crop(
    boxes: np.ndarray, offset: Sequence[int], shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Boxes of a crop.

    A box belongs to the crop if its center lies in it; what reaches beyond is cut off.

    Args:
        boxes: ``(N, 6)`` in voxels of the volume.
        offset: First voxel ``(x, y, z)`` of the crop.
        shape: ``(D, H, W)`` of the crop.

    Returns:
        ``(K, 6)`` boxes in voxels of the crop, and ``(N,)`` bool, which boxes they are.
    """
    edges = np.array([*shape[::-1]] * 2, dtype=np.float64)
    moved = boxes - np.array([*offset] * 2, dtype=np.float64)
    centers = (moved[:, :3] + moved[:, 3:]) / 2
    inside = ((centers >= 0) & (centers < edges[:3])).all(axis=1)
    return moved[inside].clip(0, edges), inside


@TRANSFORMS.register_module()
class LoadPatch(BaseTransform):
    """Read a random crop, with or without a nodule; beyond the volume there is air.

    A crop with a nodule holds a random one as a whole, at a random place. One without (and any of
    a scan that has none or is unlabeled) lies anywhere and avoids nodules where it can.

    Required keys: ``img_path``, ``geometry``, ``instances``.

    Modified keys: ``geometry``, which becomes the crop's.

    Added keys: ``img`` ``(D, H, W)`` float32 within 0 … 1, ``img_shape``, ``crop_offset`` (x, y,
    z), ``gt_bboxes`` ``(n, 6)`` float32 in voxels of the crop, ``gt_bboxes_labels`` ``(n,)`` int64.

    Args:
        size: Edge of the crop, or ``(D, H, W)``.
        positive: Probability of a crop with a nodule.
        border: How many voxels a crop may reach beyond the volume, more where the volume is
            smaller than the crop; so that nodules at the border are not always at a crop's border.
        hu_window: HU values that become 0 and 1.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        positive: float = 0.5,
        border: int = 16,
        hu_window: tuple[float, float] = (-1000.0, 400.0),
    ) -> None:
        self.size = (size,) * 3 if isinstance(size, int) else tuple(map(int, size))
        if len(self.size) != 3 or min(self.size) < 1:
            raise InputError(f"LoadPatch has size={size}; expected one or three numbers from 1")
        if not 0 <= positive <= 1:
            raise InputError(f"LoadPatch has positive={positive}; expected 0 to 1")
        if border < 0:
            raise InputError(f"LoadPatch has border={border}; expected 0 or more voxels")
        self.positive = positive
        self.border = border
        self.hu_window = check_hu_window("LoadPatch", hu_window)

    def transform(self, results: dict) -> dict:
        """Load a crop and the boxes in it."""
        geometry = Geometry.from_dict(results["geometry"])
        instances = results["instances"]
        boxes = np.array([one["bbox_3d"] for one in instances], dtype=np.float64).reshape(-1, 6)
        labels = np.array([one["bbox_label"] for one in instances], dtype=np.int64)
        start = self._draw(boxes, geometry.shape)
        stop = [a + n for a, n in zip(start, self.size)]
        offset = start[::-1]
        boxes, inside = boxes_in_crop(boxes, offset, self.size)
        hu = read_padded(results["img_path"], start, stop)
        results["img"] = apply_hu_window(hu, self.hu_window, maximum=1.0)
        results["img_shape"] = self.size
        results["crop_offset"] = offset
        results["geometry"] = geometry.crop(offset, self.size).to_dict()
        results["gt_bboxes"] = boxes.astype(np.float32)
        results["gt_bboxes_labels"] = labels[inside]
        return results

    def _draw(self, boxes: np.ndarray, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """First voxel (z, y, x)."""
        size = np.array(self.size)
        spare = np.array(shape) - size
        # A smaller volume lies anywhere in the crop, a larger one holds it but for the border.
        low = np.minimum(0, spare) - self.border
        high = np.maximum(0, spare) + self.border
        if len(boxes) and np.random.random() < self.positive:
            box = boxes[np.random.randint(len(boxes))]
            first, last = box[2::-1], box[:2:-1]
            # Starts that hold it as a whole; the middle one where it is larger than the crop.
            least, most = np.ceil(last) - size, np.floor(first)
            middle = np.rint((first + last - size) / 2)
            least, most = np.where(least <= most, (least, most), middle).clip(low, high)
            start = np.random.randint(least.astype(int), most.astype(int) + 1)
            return tuple(start.tolist())
        starts = np.random.randint(low, high + 1, size=(_TRIES, 3))
        if len(boxes):
            centers = (boxes[:, :3] + boxes[:, 3:])[:, ::-1] / 2
            inside = (centers >= starts[:, None]) & (centers < starts[:, None] + size)
            held = inside.all(axis=2).sum(axis=1)
            return tuple(starts[np.argmin(held)].tolist())
        return tuple(starts[0].tolist())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, positive={self.positive}, "
            f"border={self.border}, hu_window={self.hu_window})"
        )


def read_padded(path: str, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Read a crop, with air where it reaches beyond the volume.

    Args:
        path: The volume's file.
        start: First voxel ``(z, y, x)``.
        stop: One past the last voxel ``(z, y, x)``.

    Returns:
        int16 HU of shape ``stop - start``.
    """
    volume = open_stored_volume(path)
    low = [max(a, 0) for a in start]
    high = [min(b, n) for b, n in zip(stop, volume.shape)]
    if all(a == c and b == d for a, b, c, d in zip(start, stop, low, high)):
        return volume.read_crop(start, stop)
    crop = np.full([b - a for a, b in zip(start, stop)], AIR, dtype=np.int16)
    if all(a < b for a, b in zip(low, high)):
        inside = tuple(slice(a - c, b - c) for a, b, c in zip(low, high, start))
        crop[inside] = volume.read_crop(low, high)
    return crop
