"""Loading of random patches of volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Geometry
from mmdet_lesion.structures.hu_window import apply_hu_window, check_hu_window

from .stored_volume import open_stored_volume

__all__ = ["LoadPatch", "boxes_in_crop"]

AIR = -1024
# Number of random positions from which a negative patch with the fewest boxes is selected.
_TRIES = 16


def boxes_in_crop(
    boxes: np.ndarray, offset: Sequence[int], shape: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Select the boxes whose center lies in a crop, and clip them to the crop.

    Args:
        boxes: Boxes in voxels of the volume, shape (N, 6).
        offset: First voxel ``(x, y, z)`` of the crop.
        shape: Size ``(D, H, W)`` of the crop.

    Returns:
        Boxes in voxels of the crop, shape (K, 6), and a mask of the selected boxes, shape (N,),
        bool.
    """
    edges = np.array([*shape[::-1]] * 2, dtype=np.float64)
    moved = boxes - np.array([*offset] * 2, dtype=np.float64)
    centers = (moved[:, :3] + moved[:, 3:]) / 2
    inside = ((centers >= 0) & (centers < edges[:3])).all(axis=1)
    return moved[inside].clip(0, edges), inside


@TRANSFORMS.register_module()
class LoadPatch(BaseTransform):
    """Load a random patch of a volume, padded with air, and its boxes.

    A positive patch contains a random nodule as a whole at a random position. A negative patch
    has a random position and contains as few nodules as possible; patches of scans without
    annotated nodules are negative. Little more than the patch is read from the file.

    Required keys: ``img_path``, ``geometry``, ``instances``.

    Modified keys: ``geometry``, which becomes that of the patch.

    Added keys: ``img`` ``(D, H, W)`` float32 within 0 … 1, ``img_shape``, ``crop_offset`` (x, y,
    z), ``scan_shape``, the size (D, H, W) of the volume, ``gt_bboxes`` ``(n, 6)`` float32 in voxels
    of the patch, ``gt_bboxes_labels`` ``(n,)`` int64, ``hu_window``.

    Args:
        size: Edge of the patch, or its size ``(D, H, W)``, in voxels.
        positive: Probability of a positive patch.
        border: Largest number of voxels by which a patch exceeds the volume, so that nodules near
            the border of the volume are not always near the border of the patch. It is exceeded
            along axes where the volume is smaller than the patch.
        hu_window: HU values that are mapped to 0 and 1.
        align: The first voxel of the patch along each axis is a multiple of this number. With the
            largest stride of a network, the anchors of all patches of a volume are on one grid. A
            nodule that fits into no such patch as a whole is as near to the center as possible.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        positive: float = 0.5,
        border: int = 16,
        hu_window: tuple[float, float] = (-1000.0, 400.0),
        align: int = 1,
    ) -> None:
        self.size = (size,) * 3 if isinstance(size, int) else tuple(map(int, size))
        if len(self.size) != 3 or min(self.size) < 1:
            raise InputError(
                f"LoadPatch: size={size}; expected one or three integers of at least 1"
            )
        if not 0 <= positive <= 1:
            raise InputError(f"LoadPatch: positive={positive}; expected 0 to 1")
        if border < 0:
            raise InputError(f"LoadPatch: border={border}; expected 0 or more voxels")
        if align < 1:
            raise InputError(f"LoadPatch: align={align}; expected at least 1")
        self.positive = positive
        self.border = border
        self.hu_window = check_hu_window("LoadPatch", hu_window)
        self.align = align

    def transform(self, results: dict) -> dict:
        """Load a patch and its boxes."""
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
        results["hu_window"] = self.hu_window
        results["crop_offset"] = offset
        results["scan_shape"] = geometry.shape
        results["geometry"] = geometry.crop(offset, self.size).to_dict()
        results["gt_bboxes"] = boxes.astype(np.float32)
        results["gt_bboxes_labels"] = labels[inside]
        return results

    def _draw(self, boxes: np.ndarray, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """Draw the first voxel (z, y, x) of the patch."""
        size, unit = np.array(self.size), self.align
        spare = np.array(shape) - size
        # A smaller volume lies anywhere in the patch; in a larger one the patch lies within the
        # volume plus the border. Limits are rounded inwards to multiples of the unit.
        low = -((self.border - np.minimum(0, spare)) // unit)
        high = (self.border + np.maximum(0, spare)) // unit
        if len(boxes) and np.random.random() < self.positive:
            box = boxes[np.random.randint(len(boxes))]
            first, last = box[2::-1], box[:2:-1]
            # Positions that contain the whole box; a box larger than the patch is centered.
            least, most = np.ceil((np.ceil(last) - size) / unit), np.floor(first / unit)
            middle = np.rint((first + last - size) / 2 / unit)
            least, most = np.where(least <= most, (least, most), middle).clip(low, high)
            start = np.random.randint(least.astype(int), most.astype(int) + 1) * unit
            return tuple(start.tolist())
        starts = np.random.randint(low, high + 1, size=(_TRIES, 3)) * unit
        if len(boxes):
            centers = (boxes[:, :3] + boxes[:, 3:])[:, ::-1] / 2
            inside = (centers >= starts[:, None]) & (centers < starts[:, None] + size)
            held = inside.all(axis=2).sum(axis=1)
            return tuple(starts[np.argmin(held)].tolist())
        return tuple(starts[0].tolist())

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, positive={self.positive}, "
            f"border={self.border}, hu_window={self.hu_window}, align={self.align})"
        )


def read_padded(path: str, start: Sequence[int], stop: Sequence[int]) -> np.ndarray:
    """Read a crop of a stored volume, padded with air beyond the volume.

    Args:
        path: File of the volume.
        start: First voxel ``(z, y, x)``.
        stop: One past the last voxel ``(z, y, x)``.

    Returns:
        HU of shape ``stop - start``, int16.
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
