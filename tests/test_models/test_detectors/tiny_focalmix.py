"""A tiny 3D detector and batches for it."""

from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

import mmdet_lesion.models  # noqa: F401

BASE = Path(__file__).parents[3] / "configs/_base_/models/focalmix_resnet3d_fpn3d.py"
MIXUP = [dict(type="ImageLevelMixUp"), dict(type="ObjectLevelMixUp")]


def tiny_config(**kwargs):
    """Build the full config with two levels and a receptive field of a few voxels."""
    cfg = Config.fromfile(BASE).model
    cfg.data_preprocessor.size_divisor = 4
    # All weights affect the output from the start.
    cfg.backbone.update(channels=(4, 6), stage_blocks=(1, 1), zero_init_residual=False)
    cfg.neck.update(in_channels=(4, 6), out_channels=4)
    cfg.bbox_head.update(in_channels=4, feat_channels=4)
    cfg.bbox_head.anchor_generator.update(strides=(2, 4), sizes=(4, 8))
    cfg.test_cfg.update(patch_size=32, patch_overlap=16, score_thr=0.0, nms_pre=200)
    cfg.update(kwargs)
    return cfg


def build(**kwargs):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    model = MODELS.build(tiny_config(**kwargs))
    model.init_weights()
    # Spread the scores of an untrained model.
    nn.init.normal_(model.bbox_head.objectness.weight, std=0.3)
    nn.init.zeros_(model.bbox_head.objectness.bias)
    nn.init.normal_(model.bbox_head.offsets.weight, std=0.1)
    return model.eval()


def sample(boxes=(), shape=(16, 16, 16), **metainfo):
    data_sample = DetDataSample(metainfo=dict(img_shape=shape, **metainfo))
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    labels = torch.zeros(len(boxes), dtype=torch.long)
    data_sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
    return data_sample


BOX = [[4.0, 4, 4, 9, 9, 9]]


def batch(labeled=(True, True, False, False), size=16):
    torch.manual_seed(1)
    samples = [sample(BOX if index == 0 else (), labeled=one) for index, one in enumerate(labeled)]
    return dict(inputs=[torch.rand(1, size, size, size) for _ in labeled], data_samples=samples)


def losses_of(model, data, seed=0):
    torch.manual_seed(seed)
    return model(**model.data_preprocessor(data, True), mode="loss")
