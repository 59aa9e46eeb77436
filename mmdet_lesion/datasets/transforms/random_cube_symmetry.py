"""Random symmetries of the cube."""

from __future__ import annotations

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.structures.boxes3d import CUBE_SYMMETRIES, CubeSymmetry
from mmdet_lesion.structures.frame import Frame

__all__ = ["RandomCubeSymmetry"]


@TRANSFORMS.register_module()
class RandomCubeSymmetry(BaseTransform):
    """Permute and flip the axes of a volume by one of the 48 symmetries of the cube.

    A crop that is no cube keeps its size: only symmetries that leave it are drawn.

    Required keys: ``img`` ``(D, H, W)``, ``gt_bboxes`` ``(n, 6)``, ``grid``.

    Modified keys: ``img``, ``img_shape``, ``gt_bboxes``, and ``grid``, so that voxels keep their
    place in the world.

    Args:
        prob: Probability that a symmetry is drawn, the identity among them.
    """

    def __init__(self, prob: float = 1.0) -> None:
        self.prob = prob

    def transform(self, results: dict) -> dict:
        """Draw a symmetry and apply it."""
        if np.random.random() < self.prob:
            size = results["img"].shape
            fitting = [one for one in CUBE_SYMMETRIES if one.size(size) == size]
            results = self.apply(results, fitting[np.random.randint(len(fitting))])
        return results

    @staticmethod
    def apply(results: dict, symmetry: CubeSymmetry) -> dict:
        """Apply a symmetry to image, boxes and grid."""
        image = torch.from_numpy(results["img"])
        boxes = torch.from_numpy(results["gt_bboxes"])
        results["gt_bboxes"] = symmetry.apply_boxes(boxes, image.shape).numpy()
        results["img"] = symmetry.apply(image).contiguous().numpy()
        results["img_shape"] = results["img"].shape
        frame = Frame.from_dict(results["grid"])
        results["grid"] = frame.permute(symmetry.axes, symmetry.flips).to_dict()
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"
