"""Packing of slice stacks and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from mmcv.transforms import to_tensor
from mmdet.datasets.transforms import PackDetInputs
from mmdet.registry import TRANSFORMS

_META_KEYS = (
    "img_id",
    "img_path",
    "ori_shape",
    "img_shape",
    "scale_factor",
    "flip",
    "flip_direction",
    "homography_matrix",
    "volume",
    "spacing",
    "thickness",
    "slice_index",
    "slice_inds",
    "geometry",
    "published_geometry",
    "published_gt",
    "lesion_ids",
    "hidden_bboxes",
)


@TRANSFORMS.register_module()
class PackLesionInputs(PackDetInputs):
    """``PackDetInputs`` that also packs the teacher's view, slice indices and CT metainfo.

    Packs ``inputs`` ``(C, H, W)``, ``data_samples`` (with ``gt_instances.slice_inds`` if
    ``gt_slice_inds`` was loaded) and, if ``teacher_img`` was kept, ``teacher_inputs``
    ``(C, H, W)`` for ``MeanTeacherMiningHook``; data preprocessors drop it.

    Args:
        meta_keys: Keys that are copied to the metainfo of the data sample if they are present.
    """

    mapping_table = {**PackDetInputs.mapping_table, "gt_slice_inds": "slice_inds"}

    def __init__(self, meta_keys: Sequence[str] = _META_KEYS) -> None:
        super().__init__(meta_keys=meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the sample."""
        packed = super().transform(results)
        if "teacher_img" in results:
            image = results["teacher_img"].transpose(2, 0, 1)
            packed["teacher_inputs"] = to_tensor(np.ascontiguousarray(image))
        return packed
