"""Dataset of labeled or unlabeled scans of a converted LUNA16."""

from __future__ import annotations

import os.path as osp

import numpy as np
from mmdet.registry import DATASETS
from mmengine.dataset import BaseDataset

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.data_list import read_data_list
from mmdet_lesion.io.volume_store import SUFFIX

_FILTERS = ("filter_empty_gt",)


@DATASETS.register_module()
class Luna16Dataset(BaseDataset):
    """Scans of LUNA16 or other scans, converted by ``tools/dataset_converters``.

    A sample has ``img_path`` (the volume's file), ``img_id``, ``volume``, ``series_uid``,
    ``labeled``, ``geometry`` (:meth:`mmdet_lesion.structures.Geometry.to_dict`) and ``instances``
    with ``bbox_3d`` in voxels. For evaluation it also has ``nodules`` and ``excluded``,
    ``(n, 4)`` float64 rows ``x, y, z, diameter`` in world mm.

    Args:
        ann_file: Data list JSON, relative to ``data_root``.
        data_prefix: ``dict(volume=...)``, the folder of the volumes relative to ``data_root``.
        labeled: Whether to treat all scans as labeled or unlabeled; annotations of unlabeled scans
            are dropped. By default the data list decides.
        filter_cfg: ``dict(filter_empty_gt=True)`` drops training scans without a nodule.
        **kwargs: As for :class:`mmengine.dataset.BaseDataset`; ``indices=n`` selects the first
            ``n`` scans, which are in random order.

    Raises:
        InputError: An argument or the data list is invalid, or volumes are missing.
    """

    METAINFO = dict(classes=("lesion",), palette=[(255, 170, 0)])

    def __init__(
        self,
        ann_file: str,
        *,
        data_prefix: dict | None = None,
        labeled: bool | None = None,
        filter_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        for key in filter_cfg or ():
            if key not in _FILTERS:
                raise InputError(
                    f"Luna16Dataset has {key!r} in filter_cfg; expected {', '.join(_FILTERS)}"
                )
        self.labeled = labeled
        super().__init__(
            ann_file,
            data_prefix=data_prefix or dict(volume="volumes/"),
            filter_cfg=filter_cfg,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Load the data list as one dict per scan."""
        content = read_data_list(self.ann_file)
        classes = tuple(content["metainfo"]["classes"])
        if classes != tuple(self.metainfo["classes"]):
            raise InputError(
                f"{self.ann_file} has the classes {classes}; expected {self.metainfo['classes']}"
            )
        data_list = [self._info(i, entry) for i, entry in enumerate(content["data_list"])]
        # Detects a wrong folder before the model is built; checking every file would be slow.
        path = data_list[0]["img_path"]
        if not osp.isfile(path):
            raise InputError(
                f"{path}, the first volume of {self.ann_file}, does not exist; expected data_root "
                "and data_prefix['volume'] to point to the output of the converter"
            )
        return data_list

    def _info(self, index: int, entry: dict) -> dict:
        labeled = bool(entry["labeled"]) if self.labeled is None else self.labeled
        instances = entry["instances"] if labeled else []
        nodules = [[*one["center_world"], one["diameter_mm"]] for one in instances]
        excluded = entry.get("excluded", []) if labeled else []
        return dict(
            img_id=index,
            img_path=osp.join(self.data_prefix["volume"], entry["volume"] + SUFFIX),
            volume=entry["volume"],
            series_uid=entry["series_uid"],
            labeled=labeled,
            geometry=entry["geometry"],
            instances=instances,
            nodules=np.array(nodules, dtype=np.float64).reshape(-1, 4),
            excluded=np.array(excluded, dtype=np.float64).reshape(-1, 4),
        )

    def filter_data(self) -> list[dict]:
        """Drop training scans without a nodule if ``filter_empty_gt`` is set."""
        if self.test_mode or not (self.filter_cfg or {}).get("filter_empty_gt", False):
            return self.data_list
        kept = [info for info in self.data_list if info["instances"]]
        if not kept:
            raise InputError(
                f"{self.ann_file}: none of the {len(self.data_list)} scans has a nodule; expected "
                "at least one annotated nodule"
            )
        return kept
