"""Prediction of 3D boxes in stored volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData
from torch import nn

from ..errors import InputError
from ..models.finite_outputs import FiniteOutputs
from ..structures import Body, Geometry
from .detector import Detector

__all__ = ["finite_outputs", "predict_boxes", "volume_pipeline", "volume_sample"]


def predict_boxes(
    detector: Detector,
    path: Path,
    geometry: Geometry,
    score_thr: float,
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    body: Body | None = None,
) -> InstanceData:
    """Detect lesions in a stored volume.

    The boxes of several models and views are fused before they are linked to lesions.

    Args:
        detector: The detector.
        path: File of the volume, stored at the detector's spacing.
        geometry: Geometry of the volume.
        score_thr: Minimum score of a lesion.
        batch_size: Slice stacks or patches per forward pass; the default is that of the config.
        progress: Called with the number of processed slices and the number of all slices. A slice
            counts as processed in parts by each model and view.
        body: Where to search for lesions; by default everywhere.

    Returns:
        ``bboxes`` (N, 6), ``scores`` (N,), ``labels`` (N,) and ``key_slices`` (N,), as
        :meth:`~mmdet_lesion.models.VolumeDetector.predict_volume` returns them, in voxels of the
        stored volume.

    Raises:
        InputError: The GPU is out of memory, or the outputs of the network are not finite.
    """
    pipeline = volume_pipeline(detector)
    depth = geometry.shape[0]
    linker = (detector.cfg.get("test_evaluator") or {}).get("linker")

    def read(start: int, stop: int) -> dict[str, Any]:
        return pipeline(volume_sample(path, geometry) | dict(slice_range=(start, stop)))

    if not detector.is_fused:
        with finite_outputs(detector.model, detector.checkpoint, "this scan"):
            return detector.model.predict_volume(
                read,
                depth,
                score_thr=score_thr,
                batch_size=batch_size,
                linker=linker,
                progress=progress,
                body=body,
            )
    members = list(detector.predictions())
    found = []
    for number, (model, checkpoint, view) in enumerate(members):
        report = None
        if progress is not None:
            report = partial(_report_part, progress, number, len(members))
        with finite_outputs(model, checkpoint, "this scan"):
            instances = model.detect_boxes(
                view.reader(read),
                depth,
                batch_size=batch_size,
                progress=report,
                body=view.body(body),
            )
        found.append(view.restore(instances, geometry.shape))
    fused = TASK_UTILS.build(detector.fusion)(found)
    return detector.model.boxes_to_lesions(fused, score_thr, linker)


def _report_part(
    progress: Callable[[int, int], None], number: int, parts: int, done: int, total: int
) -> None:
    """Report the progress of one of several predictions as a share of all of them."""
    progress((number * total + done) // parts, total)


@contextmanager
def finite_outputs(model: nn.Module, checkpoint: str, where: str) -> Iterator[None]:
    """Context that raises an InputError for outputs that are not finite, or a lack of memory.

    Args:
        model: The model that predicts in the context.
        checkpoint: Its checkpoint, for the message.
        where: What it predicts on, for the message.
    """
    try:
        # NaN and infinity would be "no lesion" otherwise.
        with FiniteOutputs(model) as outputs:
            yield
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "the GPU is out of memory; expected a smaller batch_size or device='cpu'"
        ) from error
    if outputs.bad is not None:
        raise InputError(
            f"{checkpoint}: {outputs.bad} returns NaN or infinity for {where}; expected a "
            "checkpoint whose outputs are finite"
        )


def volume_pipeline(
    detector: Detector, slice_spacing: float = 0.0, keep_thick: bool = False
) -> Compose:
    """Build the config's test pipeline for whole stored volumes.

    Args:
        detector: The detector.
        slice_spacing: Distance in mm to which slices are interpolated; 0 for the stored slices.
        keep_thick: Whether to keep stored slices that are farther apart.
    """
    loader, *rest = detector.cfg.test_dataloader.dataset.pipeline
    if loader["type"] in ("LoadSliceStack", "LoadVolumeSlices"):
        # Configs may load single key slices or interpolate to another distance.
        hu_window = {key: loader[key] for key in ("hu_window",) if key in loader}
        loader = dict(
            type="LoadVolumeSlices", slice_spacing=slice_spacing, keep_thick=keep_thick, **hu_window
        )
    return Compose([loader, *rest])


def volume_sample(
    path: Path, geometry: Geometry, published: Geometry | None = None
) -> dict[str, Any]:
    """Return the sample of a volume without annotations, as from a test dataset.

    Args:
        path: File of the stored volume.
        geometry: Its geometry.
        published: Geometry of the published volume, by default that of the stored one.
    """
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
        published_geometry=(published or geometry).to_dict(),
        instances=[],
        excluded=[],
        labeled=False,
        subset=None,
        published_gt=np.empty((0, 5)),
    )
