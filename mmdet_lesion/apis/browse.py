"""Overlays of mined lesions on training slices and of detections on test slices."""

from __future__ import annotations

import inspect

import numpy as np
import torch
from mmdet.registry import DATASETS
from mmdet.structures.bbox import get_box_tensor
from mmengine import Config

from ..engine import MeanTeacherMiningHook
from ..errors import InputError
from ..io.volume_store import open_volume
from ..models.semi_supervised import mine_lesions, predict_teacher_views
from ..structures import HARD_NEGATIVE_LABEL, Geometry
from ..visualization import draw_lesion_overlay, window_to_uint8
from .detector import build_model, read_config
from .predict_samples import predict_annotated_samples


def mined_overlays(
    config: str, checkpoint: str, num: int = 12, device: str = "cpu"
) -> list[np.ndarray]:
    """Draw annotated, hidden (if known) and mined lesions on training slices.

    Of ``8 * num`` slices spread over the training set, those with the largest sum of the scores of
    mined lesions are drawn.

    Args:
        config: Config file with a ``MeanTeacherMiningHook`` in ``custom_hooks``, whose thresholds
            are used.
        checkpoint: Checkpoint whose ``state_dict`` is the teacher.
        num: Number of slices.
        device: Device of the model.

    Returns:
        RGB images, each of shape (H, W, 3), uint8.

    Raises:
        InputError: The config has no such hook, or the checkpoint is invalid.
    """
    cfg = read_config(config)
    iou_thr, score_thr = _thresholds(cfg)
    model = build_model(cfg, checkpoint, device)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    hu_window = _hu_window(cfg)
    candidates = []
    # Predicting the whole training set would take hours.
    for index in np.unique(np.linspace(0, len(dataset) - 1, 8 * num).astype(int)).tolist():
        info = dataset.get_data_info(index)
        lesions = [one for one in info["instances"] if one["bbox_label"] != HARD_NEGATIVE_LABEL]
        annotated = np.asarray([one["bbox"] for one in lesions], dtype=np.float32)
        packed = dataset[index]
        view, sample = packed["teacher_inputs"], packed["data_samples"]
        (predictions,) = predict_teacher_views(model, [view], [sample])
        mined = mine_lesions(predictions, view.shape[-2:], sample, iou_thr, score_thr)
        candidates.append((float(mined.scores.sum()), info, annotated.reshape(-1, 4), mined))
    candidates.sort(key=lambda candidate: -candidate[0])
    return [
        draw_lesion_overlay(
            _read_slice(info["img_path"], info["slice_index"], hu_window),
            annotated=annotated,
            hidden=info.get("hidden_bboxes"),
            mined=mined.bboxes.numpy(),
            mined_scores=mined.scores.numpy(),
            title=f"{info['volume']} z{info['slice_index']}",
        )
        for _, info, annotated, mined in candidates[:num]
    ]


def detected_overlays(
    config: str, checkpoint: str, num: int = 12, score_thr: float = 0.5, device: str = "cpu"
) -> list[np.ndarray]:
    """Draw the ground truth and the detections on test slices with a lesion, one per sample.

    Args:
        config: Config file whose test samples are volumes or key slices.
        checkpoint: Checkpoint of the config's model.
        num: Number of slices.
        score_thr: Minimum score of a detection.
        device: Device of the model.

    Returns:
        RGB images, each of shape (H, W, 3), uint8.

    Raises:
        InputError: The config or the checkpoint is invalid.
    """
    cfg = read_config(config)
    model = build_model(cfg, checkpoint, device)
    hu_window = _hu_window(cfg)
    images = []
    for data, detected in predict_annotated_samples(model, cfg, num, score_thr):
        sample = data["data_samples"]
        annotated, index = sample.gt_instances, sample.get("slice_index")
        position = index
        if index is None:
            index = int(annotated.slice_inds[0])
            annotated, detected = (one[one.slice_inds == index] for one in (annotated, detected))
            position = Geometry.from_dict(sample.geometry).slices_to(
                Geometry.from_dict(sample.published_geometry), index
            )
        # Detections are in pixels of the stored slices, annotations in those of resized ones.
        scale = torch.tensor(sample.scale_factor).repeat(2)
        images.append(
            draw_lesion_overlay(
                _read_slice(sample.img_path, position, hu_window),
                annotated=(get_box_tensor(annotated.bboxes) / scale).numpy(),
                detected=detected.bboxes.numpy(),
                detected_scores=detected.scores.numpy(),
                title=f"{sample.volume} z{index}",
            )
        )
    return images


def _thresholds(cfg: Config) -> tuple[float, float]:
    """Return the IoU and score thresholds of GT-NMS in the config's mining hook."""
    defaults = inspect.signature(MeanTeacherMiningHook).parameters
    for hook in cfg.get("custom_hooks", []):
        if hook["type"] == "MeanTeacherMiningHook":
            return tuple(hook.get(n, defaults[n].default) for n in ("iou_thr", "score_thr"))
    raise InputError(f"{cfg.filename}: no MeanTeacherMiningHook in custom_hooks; expected one")


def _hu_window(cfg: Config) -> tuple[float, float]:
    return tuple(cfg.test_dataloader.dataset.pipeline[0]["hu_window"])


def _read_slice(path: str, position: float, hu_window: tuple[float, float]) -> np.ndarray:
    """Read a slice, or interpolate between stored slices, as 8-bit gray values (H, W)."""
    return window_to_uint8(open_volume(path).interpolate_slices([position])[0], hu_window)
