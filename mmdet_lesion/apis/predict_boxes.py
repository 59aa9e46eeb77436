"""Prediction of 3D boxes in stored volumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmengine.structures import InstanceData

from ..errors import InputError
from ..models.finite_outputs import FiniteOutputs
from ..structures import Body, Geometry
from .detector import Detector

__all__ = ["predict_boxes", "volume_pipeline", "volume_sample"]


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

    Args:
        detector: The detector.
        path: File of the volume, stored at the detector's spacing.
        geometry: Geometry of the volume.
        score_thr: Minimum score of a lesion.
        batch_size: Slice stacks or patches per forward pass; the default is that of the config.
        progress: Called with the number of processed slices and the number of all slices.
        body: Where to search for lesions; by default everywhere.

    Returns:
        ``bboxes`` (N, 6), ``scores`` (N,), ``labels`` (N,) and ``key_slices`` (N,), as
        :meth:`~mmdet_lesion.models.VolumeDetector.predict_volume` returns them, in voxels of the
        stored volume.

    Raises:
        InputError: The GPU is out of memory, or the outputs of the network are not finite.
    """
    pipeline = volume_pipeline(detector)

    def read(start: int, stop: int) -> dict[str, Any]:
        return pipeline(volume_sample(path, geometry) | dict(slice_range=(start, stop)))

    try:
        # NaN and infinity would be "no lesion" otherwise.
        with FiniteOutputs(detector.model) as outputs:
            instances = detector.model.predict_volume(
                read,
                geometry.shape[0],
                score_thr=score_thr,
                batch_size=batch_size,
                linker=(detector.cfg.get("test_evaluator") or {}).get("linker"),
                progress=progress,
                body=body,
            )
    except torch.cuda.OutOfMemoryError as error:
        raise InputError(
            "the GPU is out of memory; expected a smaller batch_size or device='cpu'"
        ) from error
    if outputs.bad is not None:
        raise InputError(
            f"{detector.checkpoint}: {outputs.bad} returns NaN or infinity for this scan; expected "
            "a checkpoint whose outputs are finite"
        )
    return instances


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
