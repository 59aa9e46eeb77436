"""Pictures of what a checkpoint mines and detects, with what is known beside it."""

import inspect

import numpy as np
import torch
from mmdet.apis import init_detector
from mmdet.registry import DATASETS
from mmdet.structures.bbox import get_box_tensor
from mmengine import Config
from mmengine.dataset import pseudo_collate

from ..engine import MeanTeacherMiningHook
from ..errors import InputError
from ..io.volume_store import open_volume
from ..models.semi_supervised import mine_lesions, predict_teacher_views
from ..structures import Geometry
from ..visualization import draw_lesion_overlay, window_to_uint8


def mined_overlays(
    config: str, checkpoint: str, num: int = 12, device: str = "cpu"
) -> list[np.ndarray]:
    """Paint training slices with annotated, hidden (where known) and mined lesions.

    Of ``8 * num`` slices spread over the training set those with the most, and most confident,
    mined lesions are shown.

    Args:
        config: a config whose ``custom_hooks`` hold a ``MeanTeacherMiningHook``; its thresholds
            are used.
        checkpoint: a checkpoint whose ``state_dict`` is the teacher.
        num: pictures.
        device: where the model runs.

    Returns:
        RGB uint8 pictures (H, W, 3).

    Raises:
        InputError: the config mines nothing.
    """
    cfg = Config.fromfile(config)
    iou_thr, score_thr = _thresholds(cfg)
    model = init_detector(cfg, checkpoint, device=device)
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    window = _window(cfg)
    candidates = []
    # A sample of the training set is enough to choose from; all of it would take hours.
    for index in np.unique(np.linspace(0, len(dataset) - 1, 8 * num).astype(int)).tolist():
        info = dataset.get_data_info(index)
        annotated = np.asarray([one["bbox"] for one in info["instances"]], dtype=np.float32)
        packed = dataset[index]
        view, sample = packed["teacher_inputs"], packed["data_samples"]
        (predictions,) = predict_teacher_views(model, [view], [sample])
        mined = mine_lesions(predictions, view.shape[-2:], sample, iou_thr, score_thr)
        candidates.append((float(mined.scores.sum()), info, annotated.reshape(-1, 4), mined))
    candidates.sort(key=lambda candidate: -candidate[0])
    return [
        draw_lesion_overlay(
            _slice(info["img_path"], info["slice_index"], window),
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
    """Paint test slices that hold a lesion with its truth and the detections.

    Args:
        config: a config that tests on whole volumes.
        checkpoint: its checkpoint.
        num: pictures, one a volume.
        score_thr: lowest score of a detection.
        device: where the model runs.

    Returns:
        RGB uint8 pictures (H, W, 3).
    """
    cfg = Config.fromfile(config)
    model = init_detector(cfg, checkpoint, device=device)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    window = _window(cfg)
    pictures: list[np.ndarray] = []
    for index in range(len(dataset)):
        if len(pictures) == num:
            break
        if not dataset.get_data_info(index)["instances"]:
            continue
        data = dataset[index]
        sample = data["data_samples"]
        annotated, at = sample.gt_instances, sample.get("slice_index")
        with torch.no_grad():
            result = model.test_step(pseudo_collate([data]))[0].pred_instances.cpu()
        position = at
        if at is None:
            at = int(annotated.slice_inds[0])
            annotated, result = (found[found.slice_inds == at] for found in (annotated, result))
            position = Geometry.from_dict(sample.geometry).slices_to(
                Geometry.from_dict(sample.published_geometry), at
            )
        result = result[result.scores >= score_thr]
        # Predictions are in pixels of the stored slices, what was loaded may be resized.
        scale = torch.tensor(sample.scale_factor).repeat(2)
        pictures.append(
            draw_lesion_overlay(
                _slice(sample.img_path, position, window),
                annotated=(get_box_tensor(annotated.bboxes) / scale).numpy(),
                detected=result.bboxes.numpy(),
                detected_scores=result.scores.numpy(),
                title=f"{sample.volume} z{at}",
            )
        )
    return pictures


def _thresholds(cfg: Config) -> tuple[float, float]:
    """Return GT-NMS's IoU and score thresholds of the config's mining hook."""
    defaults = inspect.signature(MeanTeacherMiningHook).parameters
    for hook in cfg.get("custom_hooks", []):
        if hook["type"] == "MeanTeacherMiningHook":
            return tuple(hook.get(n, defaults[n].default) for n in ("iou_thr", "score_thr"))
    raise InputError(f"{cfg.filename}: no MeanTeacherMiningHook in custom_hooks, nothing mines")


def _window(cfg: Config) -> tuple[float, float]:
    return tuple(cfg.test_dataloader.dataset.pipeline[0]["hu_window"])


def _slice(path: str, position: float, window: tuple[float, float]) -> np.ndarray:
    """The picture of a stored slice, or of a place between two."""
    return window_to_uint8(open_volume(path).interpolate_slices([position])[0], window)
