"""Dataset of key slices or sub-volumes of a converted DeepLesion."""

from __future__ import annotations

import logging
import os.path as osp
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.datasets import BaseDetDataset
from mmdet.registry import DATASETS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.logging import print_log

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.coco import LESION_SOURCES, read_annotation_file
from mmdet_lesion.structures import HARD_NEGATIVE_LABEL

#: A box and an annotation with this IoU are the same lesion.
SAME_LESION_IOU = 0.5

_SAMPLES = ("slice", "volume")
_FILTERS = ("filter_empty_gt",)


@DATASETS.register_module()
class DeepLesionDataset(BaseDetDataset):
    """Slices or whole sub-volumes of DeepLesion, converted by ``tools/dataset_converters``.

    Boxes are xyxy in pixels of the stored volume, with half-open edges. The published slices are
    stored; transforms interpolate between them.

    A slice sample has ``img_path`` (the volume's file), ``img_id``, ``volume``, ``slice_index``
    (zero-based index of the published slice within the volume), ``height``, ``width``, ``spacing``
    (x, y, z of the stored volume in mm) and ``instances``. If the file has lesions of a source
    that is not in ``sources``, it also has ``hidden_bboxes``, their boxes as an ``(n, 4)`` float32
    array, with which mining is evaluated. With ``hidden_ann_file``, samples of the volumes of that
    file have ``hidden_bboxes`` instead: its boxes that overlap no instance. For evaluation, a
    sample has ``geometry`` of the stored volume, ``published_geometry`` (both as
    :meth:`mmdet_lesion.structures.Geometry.to_dict`; equal unless the file has both),
    ``published_gt``, an ``(n, 5)`` float64 array of rows ``[z, x1, y1, x2, y2]`` in published
    coordinates, and ``lesion_ids``, the lesion of each row in its volume, or None. With
    ``hard_negatives=True``, ``instances`` ends with the boxes of detections that are known to hit
    no lesion, with ``ignore_flag=1`` and the label -1; no other key has them.

    A volume sample has the same keys except ``slice_index`` and ``hidden_bboxes``; each of its
    instances has a ``slice_index``.

    Args:
        ann_file: Annotation JSON, relative to ``data_root``.
        data_prefix: ``dict(volume=...)``, the folder of the volumes relative to ``data_root``.
        sample: ``'slice'`` (one sample per entry of ``images``) or ``'volume'``.
        sources: Sources of the boxes that are used as ground truth, among ``'recist'``, ``'full'``,
            ``'mined'`` and ``'reviewed'``; by default all of them.
        hidden_ann_file: Annotation file with complete labels of some volumes, relative to
            ``data_root``, from which hidden lesions are taken; they are never trained on. A
            warning is logged if it does not exist.
        masks: Whether instances have a ``mask`` (COCO's RLE), for Mask R-CNN.
        hard_negatives: Whether slice samples have the boxes of the source ``'hard_negative'``, for
            ``HardNegativeSampler`` and ``MeanTeacherMiningHook``.
        filter_cfg: ``dict(filter_empty_gt=True)`` drops training samples that have neither ground
            truth nor hard negatives.
        **kwargs: As for :class:`mmdet.datasets.BaseDetDataset`.

    Raises:
        InputError: An argument or the annotation file is invalid, volumes are missing, or an
            earlier version has resampled them in z.
    """

    METAINFO = dict(classes=("lesion",), palette=[(255, 170, 0)])

    def __init__(
        self,
        ann_file: str,
        *,
        data_prefix: dict | None = None,
        sample: str = "slice",
        sources: str | Sequence[str] | None = None,
        hidden_ann_file: str | None = None,
        masks: bool = False,
        hard_negatives: bool = False,
        filter_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        if sample not in _SAMPLES:
            raise InputError(f"DeepLesionDataset: sample={sample!r}; expected 'slice' or 'volume'")
        if sources is None:
            sources = LESION_SOURCES
        if hard_negatives and sample != "slice":
            raise InputError(
                f"DeepLesionDataset: hard_negatives=True with sample={sample!r}; expected "
                "sample='slice'"
            )
        sources = (sources,) if isinstance(sources, str) else tuple(sources)
        for source in sources:
            if source not in LESION_SOURCES:
                raise InputError(
                    f"DeepLesionDataset has {source!r} in sources; expected some of "
                    f"{', '.join(LESION_SOURCES)}"
                )
        for key in filter_cfg or ():
            if key not in _FILTERS:
                raise InputError(
                    f"DeepLesionDataset has {key!r} in filter_cfg; expected {', '.join(_FILTERS)}"
                )
        self.sample = sample
        self.sources = sources
        self.hidden_ann_file = hidden_ann_file
        self.masks = masks
        self.hard_negatives = hard_negatives
        super().__init__(
            ann_file,
            data_prefix=data_prefix or dict(volume="volumes/"),
            filter_cfg=filter_cfg,
            **kwargs,
        )

    def load_data_list(self) -> list[dict]:
        """Load the annotation file as one dict per sample."""
        content = read_annotation_file(self.ann_file, self.data_prefix["volume"])
        self._labels = self._read_labels(content["categories"])
        self._geometries = {
            volume["name"]: dict(
                geometry=volume["geometry"],
                published_geometry=volume.get("published_geometry", volume["geometry"]),
            )
            for volume in content["volumes"]
        }
        for name, pair in self._geometries.items():
            self._check_slices(name, **pair)
        self._complete = self._read_complete()
        if self.hard_negatives and not any(
            one["source"] == "hard_negative" for one in content["annotations"]
        ):
            print_log(
                f"{self.ann_file}: no annotation has the source 'hard_negative'; "
                "hard_negatives=True has no effect",
                logger="current",
                level=logging.WARNING,
            )
        annotations = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["category_id"] in self._labels:
                annotations[annotation["image_id"]].append(annotation)
        if self.sample == "slice":
            # In a file of RECIST boxes only, the other lesions are unknown.
            knows_hidden = any(
                one["source"] in LESION_SOURCES and one["source"] not in self.sources
                for one in content["annotations"]
            )
            data_list = [
                self._slice_info(image, annotations, knows_hidden) for image in content["images"]
            ]
        else:
            images = defaultdict(list)
            for image in content["images"]:
                images[image["volume"]].append(image)
            data_list = [
                self._volume_info(volume, images[volume["name"]], annotations)
                for volume in content["volumes"]
                if volume["name"] in images
            ]
        self._check_first_volume(data_list[0]["img_path"])
        return data_list

    def filter_data(self) -> list[dict]:
        """Drop training samples that teach nothing if ``filter_empty_gt`` is set."""
        if self.test_mode or not (self.filter_cfg or {}).get("filter_empty_gt", False):
            return self.data_list
        kept = [
            info
            for info in self.data_list
            if any(
                not instance["ignore_flag"] or instance["bbox_label"] == HARD_NEGATIVE_LABEL
                for instance in info["instances"]
            )
        ]
        if not kept:
            raise InputError(
                f"{self.ann_file}: no box with a source in {', '.join(self.sources)} among "
                f"{len(self.data_list)} samples; expected at least one"
            )
        return kept

    def _read_complete(self) -> dict[tuple[str, int], list[list[float]]] | None:
        """Read the boxes of ``hidden_ann_file`` by volume and slice."""
        if self.hidden_ann_file is None:
            return None
        path = self.hidden_ann_file
        if self.data_root and not osp.isabs(path):
            path = osp.join(self.data_root, path)
        if not osp.isfile(path):
            # Only figures in the log depend on it, and own data rarely have it.
            print_log(
                f"{path} (hidden_ann_file) does not exist; precision and recall of mining are not "
                "logged",
                logger="current",
                level=logging.WARNING,
            )
            return None
        content = read_annotation_file(path, self.data_prefix["volume"])
        places = {
            image["id"]: (image["volume"], image["slice_index"]) for image in content["images"]
        }
        boxes: dict[tuple[str, int], list[list[float]]] = {place: [] for place in places.values()}
        for annotation in content["annotations"]:
            if annotation["source"] in LESION_SOURCES:
                x, y, width, height = annotation["bbox"]
                boxes[places[annotation["image_id"]]].append([x, y, x + width, y + height])
        return boxes

    def _hidden(self, image: dict, shown: list[dict], hidden: list[dict] | None) -> dict:
        """Return the ``hidden_bboxes`` of a slice, nothing if its lesions are not all known."""
        if self._complete is None:
            boxes = None if hidden is None else [self._instance(one)["bbox"] for one in hidden]
        else:
            boxes = self._complete.get((image["volume"], image["slice_index"]))
            boxes = boxes and _unannotated(boxes, [self._instance(one)["bbox"] for one in shown])
        if boxes is None:
            return {}
        return dict(hidden_bboxes=np.array(boxes, dtype=np.float32).reshape(-1, 4))

    def _read_labels(self, categories: list[dict]) -> dict[int, int]:
        classes = self.metainfo["classes"]
        labels = {c["id"]: classes.index(c["name"]) for c in categories if c["name"] in classes}
        if not labels:
            raise InputError(
                f"{self.ann_file}: 'categories' names {[c['name'] for c in categories]}; expected "
                f"one of the classes {list(classes)}"
            )
        return labels

    def _check_slices(self, name: str, geometry: dict, published_geometry: dict) -> None:
        published, stored = published_geometry["spacing"][2], geometry["spacing"][2]
        if published != stored or published_geometry["shape"][0] != geometry["shape"][0]:
            raise InputError(
                f"{self.ann_file}: the volume {name} was published with slices every "
                f"{published:g} mm and is stored with slices every {stored:g} mm; expected the "
                "published slices: convert again with tools/dataset_converters/deeplesion.py"
            )

    def _check_first_volume(self, path: str) -> None:
        # Detects a wrong folder before the model is built; checking every file would be slow.
        if not osp.isfile(path):
            raise InputError(
                f"{path}, the first volume of {self.ann_file}, does not exist; expected data_root "
                "and data_prefix['volume'] to point to the output of "
                "tools/dataset_converters/deeplesion.py"
            )

    @staticmethod
    def _box(annotation: dict) -> dict:
        x, y, width, height = annotation["bbox"]
        return dict(
            bbox=[x, y, x + width, y + height],
            source=annotation["source"],
            lesion_type=annotation.get("lesion_type", -1),
        )

    def _instance(self, annotation: dict) -> dict:
        mask = {}
        if self.masks:
            if not annotation.get("segmentation"):
                raise InputError(
                    f"{self.ann_file}: the annotation with id {annotation['id']} has no "
                    "'segmentation', which masks=True needs; convert with --masks"
                )
            mask = dict(mask=annotation["segmentation"])
        return dict(
            self._box(annotation),
            bbox_label=self._labels[annotation["category_id"]],
            ignore_flag=int(annotation.get("iscrowd", 0)),
            **mask,
        )

    def _hard_negative(self, annotation: dict) -> dict:
        # An empty polygon: LoadAnnotations needs a mask, and accepts invalid ones if ignored.
        return dict(
            self._box(annotation),
            bbox_label=HARD_NEGATIVE_LABEL,
            ignore_flag=1,
            **(dict(mask=[]) if self.masks else {}),
        )

    def _slice_info(
        self, image: dict, annotations: dict[int, list[dict]], knows_hidden: bool
    ) -> dict:
        present = annotations.get(image["id"], ())
        lesions = [a for a in present if a["source"] in LESION_SOURCES]
        shown = [a for a in lesions if a["source"] in self.sources]
        hidden = [a for a in lesions if a["source"] not in self.sources]
        instances = [self._instance(annotation) for annotation in shown]
        if self.hard_negatives:
            instances += [self._hard_negative(a) for a in present if a["source"] == "hard_negative"]
        return dict(
            img_id=image["id"],
            img_path=osp.join(self.data_prefix["volume"], image["file_name"]),
            volume=image["volume"],
            slice_index=image["slice_index"],
            height=image["height"],
            width=image["width"],
            spacing=tuple(image["spacing"]),
            instances=instances,
            **self._geometries[image["volume"]],
            **_published(shown),
            **self._hidden(image, shown, hidden if knows_hidden else None),
        )

    def _volume_info(
        self, volume: dict, images: list[dict], annotations: dict[int, list[dict]]
    ) -> dict:
        images = sorted(images, key=lambda image: image["slice_index"])
        instances, published = [], []
        for image in images:
            for annotation in annotations.get(image["id"], ()):
                if annotation["source"] in self.sources:
                    instance = self._instance(annotation)
                    instances.append(dict(instance, slice_index=image["slice_index"]))
                    published.append(annotation)
        return dict(
            img_id=volume["id"],
            img_path=osp.join(self.data_prefix["volume"], volume["file_name"]),
            volume=volume["name"],
            height=images[0]["height"],
            width=images[0]["width"],
            spacing=tuple(images[0]["spacing"]),
            **self._geometries[volume["name"]],
            instances=instances,
            **_published(published),
        )


def _published(annotations: list[dict]) -> dict:
    """Return ``published_gt`` and ``lesion_ids`` of annotations."""
    rows = [[one["published_slice"], *one["published_bbox"]] for one in annotations]
    return dict(
        published_gt=np.array(rows, dtype=np.float64).reshape(-1, 5),
        lesion_ids=[one.get("lesion_id") for one in annotations],
    )


def _unannotated(boxes: list[list[float]], shown: list[list[float]]) -> list[list[float]]:
    """Return the boxes xyxy that have an IoU below 0.5 with all shown ones."""
    if not shown:
        return boxes
    overlaps = bbox_overlaps(torch.tensor(boxes), torch.tensor(shown)).max(dim=1).values
    return [box for box, overlap in zip(boxes, overlaps.tolist()) if overlap < SAME_LESION_IOU]
