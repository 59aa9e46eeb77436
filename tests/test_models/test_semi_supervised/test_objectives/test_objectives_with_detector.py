"""Tests of the objectives with the layers of the 3D detector."""

import copy
from pathlib import Path

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from torch import nn

from mmdet_lesion.models.semi_supervised.objectives import (
    AnchorPredictor,
    ObjectiveContext,
    PatchOrigin,
    build_objectives,
)

BASE = Path(__file__).parents[4] / "configs/_base_/models/focalmix_resnet3d_fpn3d.py"
TYPES = [
    "EntropyMinimization",
    "FixMatch",
    "MeanTeacherConsistency",
    "MixMatch",
    "PiModel",
    "PseudoLabel",
    "TemporalEnsembling",
    "UDA",
    "VirtualAdversarialTraining",
]


def build_detector(with_cp):
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(BASE).model
    cfg.data_preprocessor.size_divisor = 4
    cfg.backbone.update(channels=(4, 6), stage_blocks=(1, 1), zero_init_residual=False)
    cfg.backbone.with_cp = with_cp
    cfg.neck.update(in_channels=(4, 6), out_channels=4)
    cfg.bbox_head.update(in_channels=4, feat_channels=4)
    cfg.bbox_head.anchor_generator.update(strides=(2, 4), sizes=(4, 8))
    cfg.test_cfg.update(patch_size=16, patch_overlap=8)
    model = MODELS.build(cfg)
    model.init_weights()
    nn.init.normal_(model.bbox_head.objectness.weight, std=0.3)
    nn.init.zeros_(model.bbox_head.objectness.bias)
    return model.train()


def predictor(model):
    return AnchorPredictor(model, lambda x: model.bbox_head.forward_cls(model.extract_feat(x)))


def make_context(model):
    size, anchors = (8, 8, 8), 4**3 + 2**3
    return ObjectiveContext(
        student=predictor(model),
        teacher=predictor(copy.deepcopy(model).eval()),
        unlabeled=torch.rand(2, 1, *size),
        strides=model.bbox_head.anchor_generator.strides,
        iteration=5,
        total_iterations=10,
        origins=[PatchOrigin("a", (0, 0, 0), size), PatchOrigin("a", (4, 0, 0), size)],
        labeled=torch.rand(1, 1, *size),
        labeled_targets=torch.zeros(1, anchors),
        generator=torch.Generator().manual_seed(0),
    )


@pytest.mark.parametrize("with_cp", [False, True], ids=["", "with_cp"])
@pytest.mark.parametrize("kind", TYPES)
def test_gradients_and_running_statistics(kind, with_cp):
    model = build_detector(with_cp)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm3d)]
    # Confidence is low in an untrained model.
    thresholds = dict(FixMatch=dict(pos_thr=0.55), UDA=dict(confidence_thr=0.5))
    thresholds["PseudoLabel"] = dict(pos_thr=0.55, neg_thr=0.45)
    (objective,) = build_objectives([dict(type=kind, **thresholds.get(kind, {}))])
    context = make_context(model)
    if kind == "TemporalEnsembling":
        objective(context)
    before = norms[0].num_batches_tracked.item()
    losses, _ = objective(context)
    (loss,) = losses.values()
    loss.backward()
    # The blocks of a checkpointed backbone run again in the backward pass, as in any training.
    counts = {norm.num_batches_tracked.item() - before for norm in norms}
    assert counts == ({1, 2} if with_cp else {1})
    assert loss.isfinite()
    assert model.bbox_head.objectness.weight.grad.abs().sum() > 0
    assert all(part.grad is not None for part in model.backbone.parameters())
    assert all(part.grad is None for part in context.teacher.module.parameters())


@pytest.mark.parametrize("kind", TYPES)
def test_mixed_precision(kind):
    model = build_detector(False)
    (objective,) = build_objectives([dict(type=kind)])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses, logs = objective(make_context(model))
    for value in (*losses.values(), *logs.values()):
        assert value.dtype == torch.float32
        assert value.isfinite()
