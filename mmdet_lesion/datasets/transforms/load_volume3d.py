"""Loading of whole volumes as 3D images."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.structures.hu_window import apply_hu_window, check_hu_window

from .stored_volume import open_stored_volume


@TRANSFORMS.register_module()
class LoadVolume3D(BaseTransform):
    """Load a whole volume and its boxes.

    Required keys: ``img_path``, ``instances``.

    Added keys: ``img`` ``(D, H, W)`` float32 within 0 … 1, ``img_shape``, ``crop_offset`` (x, y,
    z), ``gt_bboxes`` ``(n, 6)`` float32 in voxels, ``gt_bboxes_labels`` ``(n,)`` int64.

    Args:
        hu_window: HU values that are mapped to 0 and 1.
    """

    def __init__(self, hu_window: tuple[float, float] = (-1000.0, 400.0)) -> None:
        self.hu_window = check_hu_window("LoadVolume3D", hu_window)

    def transform(self, results: dict) -> dict:
        """Load the volume."""
        volume = open_stored_volume(results["img_path"])
        hu = volume.read_crop((0, 0, 0), volume.shape)
        instances = results["instances"]
        boxes = np.array([one["bbox_3d"] for one in instances], dtype=np.float32)
        results["img"] = apply_hu_window(hu, self.hu_window, maximum=1.0)
        results["img_shape"] = hu.shape
        results["crop_offset"] = (0, 0, 0)
        results["gt_bboxes"] = boxes.reshape(-1, 6)
        results["gt_bboxes_labels"] = np.array(
            [one["bbox_label"] for one in instances], dtype=np.int64
        )
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hu_window={self.hu_window})"
