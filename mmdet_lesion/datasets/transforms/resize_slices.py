"""Resizing of images with many channels."""

from __future__ import annotations

import cv2
import numpy as np
from mmdet.datasets.transforms import Resize
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizeSlices(Resize):
    """``Resize`` for any number of channels, which are resized one by one.

    OpenCV supports a limited number of channels, and a whole volume has more. Images that already
    have the target size are not copied, since that would be the slowest step of the pipeline.

    Args:
        scale: Largest (width, height) of the image, whose aspect ratio is kept.
    """

    def __init__(self, scale: tuple[int, int]) -> None:
        super().__init__(scale=scale, keep_ratio=True)

    def transform(self, results: dict) -> dict:
        """Resize image, boxes and masks."""
        height, width = results["img"].shape[:2]
        ratio = min(self.scale[0] / width, self.scale[1] / height)
        if ratio == 1:
            return results
        results["scale"] = round(width * ratio), round(height * ratio)
        self._resize_img(results)
        self._resize_bboxes(results)
        self._resize_masks(results)
        self._record_homography_matrix(results)
        return results

    def _resize_img(self, results: dict) -> None:
        image, (width, height) = results["img"], results["scale"]
        results["scale_factor"] = (width / image.shape[1], height / image.shape[0])
        resized = np.empty((image.shape[2], height, width), dtype=image.dtype)
        for plane, target in zip(image.transpose(2, 0, 1), resized):
            cv2.resize(np.ascontiguousarray(plane), (width, height), dst=target)
        # A view in mmdet's order (H, W, C), so that packing as (D, H, W) needs no copy.
        results["img"] = resized.transpose(1, 2, 0)
        results["img_shape"] = (height, width)
        results["keep_ratio"] = True

    def __repr__(self) -> str:
        return f"{type(self).__name__}(scale={self.scale})"
