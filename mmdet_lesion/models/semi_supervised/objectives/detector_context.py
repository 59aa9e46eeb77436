"""Inputs of the objectives from a batch of the 3D detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmdet.structures import SampleList
from mmengine.logging import MessageHub
from torch import Tensor

from ....errors import InputError
from ....structures import CubeSymmetry
from .context import AnchorPredictor, ObjectiveContext, PatchOrigin

if TYPE_CHECKING:
    from ...detectors import FocalMix

__all__ = ["anchor_predictor", "detector_context", "patch_origins"]


def anchor_predictor(model: FocalMix) -> AnchorPredictor:
    """Wrap the backbone, neck and classification branch of a detector."""
    return AnchorPredictor(model, lambda x: model.bbox_head.forward_cls(model.extract_feat(x)))


def patch_origins(samples: SampleList, size: Sequence[int]) -> list[PatchOrigin] | None:
    """Read the origins of patches from their metainfo.

    Args:
        samples: Data samples of :class:`LoadPatch`, with or without a symmetry of the cube.
        size: Size (D, H, W) of the patches of the batch.

    Returns:
        One origin per patch; None if a patch was not loaded by :class:`LoadPatch`, or was padded.
    """
    origins = []
    for sample in samples:
        meta = sample.metainfo
        if not {"volume", "crop_offset", "scan_shape"} <= meta.keys():
            return None
        if tuple(meta["img_shape"]) != tuple(size):
            return None
        symmetry = meta.get("symmetry", CubeSymmetry())
        # The offset is (x, y, z).
        start = tuple(meta["crop_offset"][::-1])
        origins.append(PatchOrigin(meta["volume"], start, tuple(meta["scan_shape"]), symmetry))
    return origins


def detector_context(
    model: FocalMix,
    teacher: FocalMix | None,
    batch_inputs: Tensor,
    batch_data_samples: SampleList,
    labeled: Tensor,
    labeled_targets: Tensor,
    labeled_used: Tensor,
) -> ObjectiveContext:
    """Collect the inputs of the objectives in the present iteration of a runner.

    Args:
        model: The detector that is trained.
        teacher: The averaged detector, if there is one.
        batch_inputs: Patches (N, 1, D, H, W).
        batch_data_samples: Their N data samples.
        labeled: Whether each patch is labeled, shape (N,), bool.
        labeled_targets: Classification targets of the M labeled patches before any MixUp, shape
            (M, A).
        labeled_used: Whether their anchors have a loss, shape (M, A), bool.

    Raises:
        InputError: There is no runner, which knows the iteration.
    """
    hub = MessageHub.get_current_instance()
    iteration, total_iterations = hub.get_info("iter"), hub.get_info("max_iters")
    if iteration is None or total_iterations is None:
        if model.unsupervised:
            raise InputError(
                f"{type(model).__name__}: unsupervised objectives without an iteration; expected "
                "a training by MMEngine's Runner"
            )
        # The objective of the detector's own settings has no ramp.
        iteration, total_iterations = 0, 1
    flags = labeled.tolist()
    unlabeled = [sample for sample, flag in zip(batch_data_samples, flags) if not flag]
    return ObjectiveContext(
        student=anchor_predictor(model),
        unlabeled=batch_inputs[~labeled],
        strides=model.bbox_head.anchor_generator.strides,
        iteration=iteration,
        total_iterations=total_iterations,
        teacher=None if teacher is None else anchor_predictor(teacher),
        origins=patch_origins(unlabeled, batch_inputs.shape[2:]),
        labeled=batch_inputs[labeled],
        labeled_targets=labeled_targets,
        labeled_used=labeled_used,
    )
