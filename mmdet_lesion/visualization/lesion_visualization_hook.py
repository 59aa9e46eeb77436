"""Hook that draws predictions on slices of test volumes."""

from __future__ import annotations

import math
import os.path as osp
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from mmdet.engine.hooks import DetVisualizationHook
from mmdet.registry import HOOKS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.runner import Runner
from mmengine.structures import InstanceData

from mmdet_lesion.errors import InputError
from mmdet_lesion.io.volume_store import open_volume
from mmdet_lesion.structures import Geometry
from mmdet_lesion.structures.hu_window import check_hu_window

from .overlay import SOFT_TISSUE, window_to_uint8


def _on_slice(instances: InstanceData, index: int | None) -> InstanceData:
    """Return the instances on one slice as plain tensors; all instances if ``index`` is None."""
    boxes = get_box_tensor(instances.bboxes).cpu()
    chosen = InstanceData(bboxes=boxes, labels=instances.labels.cpu())
    if "scores" in instances:
        chosen.scores = instances.scores.cpu()
    if _is_3d(instances) and index is not None:
        # Cross sections of the boxes at the middle of the slice.
        chosen.bboxes = boxes[:, [0, 1, 3, 4]]
        return chosen[(boxes[:, 2] <= index + 0.5) & (index + 0.5 < boxes[:, 5])]
    return chosen if index is None else chosen[instances.slice_inds.cpu() == index]


def _is_3d(instances: InstanceData) -> bool:
    return instances.bboxes.shape[-1] == 6


def _slice_inds(instances: InstanceData) -> np.ndarray:
    """Return the slice of each instance, for 3D boxes the middle slice, shape (N,)."""
    if not _is_3d(instances):
        return instances.slice_inds.cpu().numpy()
    return ((instances.bboxes[:, 2] + instances.bboxes[:, 5]) / 2).long().cpu().numpy()


def _stored_position(sample: DetDataSample, index: int) -> float:
    """Convert a slice index of the predicted array to a position among the stored slices."""
    meta = sample.metainfo
    if "slice_inds" not in meta or "published_geometry" not in meta:
        return index
    published = Geometry.from_dict(meta["published_geometry"])
    return float(Geometry.from_dict(meta["geometry"]).slices_to(published, index))


@HOOKS.register_module()
class LesionVisualizationHook(DetVisualizationHook):
    """Draw predictions on slices of test volumes in an HU window.

    Boxes may be 2D boxes on slices, or 3D boxes, whose cross sections are drawn. For each volume,
    the slices with the highest scores above ``score_thr`` are drawn; if there are none, those with
    ground truth, or the middle slice. Files are named ``{volume}_z{slice:03d}.png``, by the slice
    of the predicted array, and written to ``{work_dir}/{timestamp}/{test_out_dir}``. As in mmdet's
    hook, which ``test.py --show-dir`` enables, the ground truth is on the left and predictions are
    on the right, and only the main process draws.

    Args:
        hu_window: HU values that are mapped to black and white.
        max_slices: Maximum number of slices for each volume.
        min_size: Minimum length of a slice's longer side in pixels. Smaller slices are enlarged by
            an integer factor, so that text does not hide lesions.
        **kwargs: As for :class:`mmdet.engine.hooks.DetVisualizationHook`.

    Raises:
        InputError: ``max_slices`` or ``hu_window`` is invalid.
    """

    def __init__(
        self,
        *,
        hu_window: tuple[float, float] = SOFT_TISSUE,
        max_slices: int = 3,
        min_size: int = 512,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        if max_slices < 1:
            raise InputError(
                f"LesionVisualizationHook has max_slices={max_slices}; expected at least 1"
            )
        self.hu_window = check_hu_window("LesionVisualizationHook", hu_window)
        self.max_slices = max_slices
        self.min_size = min_size

    def after_val_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: Sequence[DetDataSample],
    ) -> None:
        """Draw the best slice of the first volume every ``interval`` iterations."""
        step = runner.iter + batch_idx
        if self.draw and step % self.interval == 0:
            _, image, sample = next(self._render_slices(outputs[0]))
            self._visualizer.add_datasample(
                "val_img",
                image,
                data_sample=sample,
                show=self.show,
                wait_time=self.wait_time,
                pred_score_thr=self.score_thr,
                step=step,
            )

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict,
        outputs: Sequence[DetDataSample],
    ) -> None:
        """Draw slices of every volume."""
        if not self.draw:
            return
        for volume_sample in outputs:
            for name, image, sample in self._render_slices(volume_sample):
                self._test_index += 1
                out_file = None
                if self.test_out_dir is not None:
                    out_file = osp.join(
                        runner.work_dir, runner.timestamp, self.test_out_dir, f"{name}.png"
                    )
                self._visualizer.add_datasample(
                    name if self.show else "test_img",
                    image,
                    data_sample=sample,
                    show=self.show,
                    wait_time=self.wait_time,
                    pred_score_thr=self.score_thr,
                    out_file=out_file,
                    step=self._test_index,
                )

    def _choose_slices(self, sample: DetDataSample) -> list[int]:
        predictions = sample.pred_instances
        confident = predictions.scores > self.score_thr
        scores = predictions.scores[confident].cpu().numpy()
        slices, inverse = np.unique(
            _slice_inds(predictions)[confident.cpu().numpy()], return_inverse=True
        )
        best = np.zeros(len(slices))
        np.maximum.at(best, inverse, scores)
        chosen = slices[np.argsort(-best, kind="stable")].tolist()
        if not chosen and "gt_instances" in sample and len(sample.gt_instances):
            chosen = np.unique(_slice_inds(sample.gt_instances)).tolist()
        if not chosen:
            all_slices = range(sample.img_shape[0]) if _is_3d(predictions) else sample.slice_inds
            chosen = [all_slices[len(all_slices) // 2]]
        return [int(index) for index in chosen[: self.max_slices]]

    def _render_slices(
        self, sample: DetDataSample
    ) -> Iterator[tuple[str, np.ndarray, DetDataSample]]:
        """Yield name, image (H, W, 3) uint8 and boxes of each slice to draw."""
        whole = "slice_inds" in sample.pred_instances or _is_3d(sample.pred_instances)
        volume = open_volume(sample.img_path)
        for index in self._choose_slices(sample) if whole else [sample.slice_index]:
            (hu,) = volume.interpolate_slices([_stored_position(sample, index)])
            gray = window_to_uint8(hu, self.hu_window)
            factor = max(1, math.ceil(self.min_size / max(gray.shape)))
            size = (gray.shape[1] * factor, gray.shape[0] * factor)
            gray = cv2.resize(gray, size, interpolation=cv2.INTER_CUBIC)
            boxes = DetDataSample()
            for field in ("gt_instances", "pred_instances"):
                if field in sample:
                    instances = _on_slice(sample.get(field), index if whole else None)
                    instances.bboxes = instances.bboxes * factor
                    setattr(boxes, field, instances)
            name = f"{sample.volume}_z{index:03d}"
            yield name, cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB), boxes
