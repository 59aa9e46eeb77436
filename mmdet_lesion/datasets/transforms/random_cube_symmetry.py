"""Augmentation by random symmetries of the cube."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.structures import CUBE_SYMMETRIES, CubeSymmetry, Geometry

__all__ = ["RandomCubeSymmetry"]


@TRANSFORMS.register_module()
class RandomCubeSymmetry(BaseTransform):
    """Permute and flip the axes of a volume by one of the 48 symmetries of the cube.

    If the volume is not a cube, only symmetries that preserve its size are drawn.

    Required keys: ``img`` ``(D, H, W)``, ``gt_bboxes`` ``(n, 6)``, ``geometry``.

    Modified keys: ``img``, ``img_shape``, ``gt_bboxes``, and ``geometry``, so that the world
    coordinates of voxels do not change.

    Added keys: ``symmetry``, the :class:`CubeSymmetry` that was applied, or that of both if this is
    the second transform.

    Args:
        prob: Probability of drawing a symmetry, which may be the identity.
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
        """Apply a symmetry to image, boxes and geometry."""
        image = results["img"]
        results["gt_bboxes"] = symmetry.apply_boxes(results["gt_bboxes"], image.shape)
        results["img"] = np.ascontiguousarray(symmetry.apply(image))
        results["img_shape"] = results["img"].shape
        geometry = Geometry.from_dict(results["geometry"])
        results["geometry"] = geometry.permute(symmetry).to_dict()
        results["symmetry"] = symmetry @ results.get("symmetry", CubeSymmetry())
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}(prob={self.prob})"
