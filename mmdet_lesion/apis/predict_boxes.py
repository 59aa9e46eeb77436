"""3D boxes of a stored volume, from detectors on slices and from detectors on patches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import TASK_UTILS
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData

from ..errors import InputError
from ..models import SliceFasterRCNN
from ..structures import Geometry, Tracklets
from .detector import Detector

__all__ = ["StoreBoxes", "predict_boxes"]

#: Slices that are in memory as floats at a time.
CHUNK = 64
#: A lesion is linked from slices whose scores reach this share of the threshold.
HYSTERESIS = 0.5

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class StoreBoxes:
    """Lesions in the voxels of the stored volume.

    Args:
        boxes: ``(N, 6)`` half-open edges ``[x1, y1, z1, x2, y2, z2]``.
        scores: ``(N,)``.
        key_slices: ``(N,)`` store slice that shows each lesion best, maybe between two.
        labels: ``(N,)``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    key_slices: np.ndarray
    labels: np.ndarray


def predict_boxes(
    detector: Detector,
    path: Path,
    geometry: Geometry,
    score_thr: float,
    batch_size: int | None = None,
    progress: Progress | None = None,
) -> StoreBoxes:
    """Detect lesions in a volume of the store.

    Args:
        detector: A detector on slices (:class:`SliceFasterRCNN`), whose boxes are linked along z,
            or one that answers a whole volume with ``(n, 6)`` boxes.
        path: The volume.
        geometry: Its geometry.
        score_thr: Lowest score of a lesion.
        batch_size: Windows or patches that are computed at once; by default the model's.
        progress: Called with the number of slices that are done, and of all slices.

    Raises:
        InputError: The detector is of neither family.
    """
    if batch_size is not None:
        _set_batch_size(detector, batch_size)
    predict = _predict_slices if isinstance(detector.model, SliceFasterRCNN) else _predict_patches
    return predict(detector, path, geometry, score_thr, progress or (lambda done, total: None))


def _set_batch_size(detector: Detector, batch_size: int) -> None:
    """Slice detectors compute windows in chunks, 3D detectors patches in batches."""
    model = detector.model
    if hasattr(model, "chunk_size"):
        model.chunk_size = batch_size
    elif "window_batch" in (getattr(model, "test_cfg", None) or {}):
        model.test_cfg["window_batch"] = batch_size


def _pipeline(detector: Detector) -> Compose:
    """The config's test pipeline for a volume that is stored at the detector's spacing."""
    loader, *rest = detector.cfg.test_dataloader.dataset.pipeline
    if loader["type"] in ("LoadSliceWindow", "LoadVolume"):
        # Key slices are tested one by one, and slices interpolated when they are loaded.
        window = {key: loader[key] for key in ("window",) if key in loader}
        loader = dict(type="LoadVolume", slice_spacing=0, **window)
    return Compose([loader, *rest])


def _sample(path: Path, geometry: Geometry) -> dict[str, Any]:
    """What a test dataset knows of a volume without annotations."""
    _, height, width = geometry.shape
    return dict(
        img_id=0,
        img_path=str(path),
        volume=path.stem,
        series_uid="",
        height=height,
        width=width,
        spacing=geometry.spacing,
        geometry=geometry.to_dict(),
        instances=[],
        excluded=[],
        labeled=False,
        subset=None,
        published_gt=np.empty((0, 5)),
    )


def _predict_slices(
    detector: Detector, path: Path, geometry: Geometry, score_thr: float, progress: Progress
) -> StoreBoxes:
    """Chunk by chunk of slices, each with the slices around it; then tracklets."""
    pipeline, depth = _pipeline(detector), geometry.shape[0]
    margin = detector.model.backbone.num_slices // 2
    found: list[InstanceData] = []
    for start in range(0, depth, CHUNK):
        stop = min(start + CHUNK, depth)
        sample = _sample(path, geometry) | dict(
            slice_range=(start - margin, stop + margin),
            slice_inds=list(range(margin, margin + stop - start)),
        )
        instances = _predict(detector, pipeline, sample)
        instances.slice_inds = instances.slice_inds + (start - margin)
        found.append(instances[instances.scores >= HYSTERESIS * score_thr])
        progress(stop, depth)
    instances = InstanceData.cat(found)
    linker = (detector.cfg.get("test_evaluator") or {}).get("linker") or dict(type="SliceLinker")
    tracklets = TASK_UTILS.build(linker)(
        instances.bboxes.numpy(), instances.scores.numpy(), instances.slice_inds.numpy()
    )
    return _from_tracklets(tracklets, score_thr)


def _from_tracklets(tracklets: Tracklets, score_thr: float) -> StoreBoxes:
    """The hull of every tracklet that is confident enough."""
    if not len(tracklets):
        return StoreBoxes(np.empty((0, 6)), np.empty(0), np.empty(0), np.empty(0, np.int64))
    starts = tracklets.offsets[:-1]
    scores = tracklets.confidence()
    low = np.minimum.reduceat(tracklets.boxes[:, :2], starts)
    high = np.maximum.reduceat(tracklets.boxes[:, 2:], starts)
    first, last = tracklets.slices[starts], tracklets.slices[tracklets.offsets[1:] - 1]
    # The first of the best: rows are sorted by tracklet, then by falling score.
    best = np.lexsort((tracklets.slices, -tracklets.scores, tracklets.ids))[starts]
    kept = scores >= score_thr
    boxes = np.column_stack((low, first, high, last + 1))
    labels = np.zeros(len(scores), dtype=np.int64)
    return StoreBoxes(
        boxes[kept], scores[kept], tracklets.slices[best][kept].astype(float), labels[kept]
    )


def _predict_patches(
    detector: Detector, path: Path, geometry: Geometry, score_thr: float, progress: Progress
) -> StoreBoxes:
    """The whole volume at once; the detector cuts and merges the patches itself."""
    instances = _predict(detector, _pipeline(detector), _sample(path, geometry))
    if instances.bboxes.shape[-1] != 6:
        raise InputError(
            f"{detector.config}: {type(detector.model).__name__} gives boxes of "
            f"{instances.bboxes.shape[-1]} numbers for a volume; expected a SliceFasterRCNN or 3D "
            "boxes"
        )
    instances = instances[instances.scores >= score_thr]
    boxes = instances.bboxes.double().numpy()
    progress(geometry.shape[0], geometry.shape[0])
    # Slice k covers the edges k to k + 1.
    middle = (boxes[:, 2] + boxes[:, 5]) / 2 - 0.5
    return StoreBoxes(boxes, instances.scores.numpy(), middle, instances.labels.numpy())


def _predict(detector: Detector, pipeline: Compose, sample: dict[str, Any]) -> InstanceData:
    data = pseudo_collate([pipeline(sample)])
    try:
        with torch.inference_mode():
            return detector.model.test_step(data)[0].pred_instances.cpu()
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "the GPU's memory does not suffice; use a smaller --batch or --device cpu"
        ) from error
