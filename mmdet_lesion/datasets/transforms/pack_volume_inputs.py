"""Packing of 3D images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

_META_KEYS = (
    "img_id",
    "img_path",
    "img_shape",
    "volume",
    "series_uid",
    "labeled",
    "crop_offset",
    "scan_shape",
    "symmetry",
    "geometry",
    "nodules",
    "excluded",
)


@TRANSFORMS.register_module()
class PackVolumeInputs(BaseTransform):
    """Pack a patch or a volume.

    Required keys: ``img`` ``(D, H, W)``, ``gt_bboxes``, ``gt_bboxes_labels``.

    Packs ``inputs`` ``(1, D, H, W)`` float32 and ``data_samples``, whose ``gt_instances`` hold
    ``bboxes`` ``(n, 6)`` and ``labels`` ``(n,)``.

    Args:
        meta_keys: Keys that are copied to the metainfo of the data sample if they are present.
    """

    def __init__(self, meta_keys: Sequence[str] = _META_KEYS) -> None:
        self.meta_keys = tuple(meta_keys)

    def transform(self, results: dict) -> dict:
        """Pack the sample."""
        sample = DetDataSample(
            metainfo={key: results[key] for key in self.meta_keys if key in results}
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.from_numpy(results["gt_bboxes"]),
            labels=torch.from_numpy(results["gt_bboxes_labels"]),
        )
        image = torch.from_numpy(np.ascontiguousarray(results["img"]))
        return dict(inputs=image[None], data_samples=sample)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(meta_keys={self.meta_keys})"
