"""Tests of ``MaskTrainedRoIHead`` in a detector."""

import copy

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

import mmdet_lesion.models  # noqa: F401


def build(root, masks):
    register_all_modules(init_default_scope=True)
    name = "mask_rcnn_3slice" if masks else "faster_rcnn_3slice"
    cfg = Config.fromfile(root / "configs" / "partial_label" / f"{name}.py").model
    cfg.backbone.update(
        growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None, norm_eval=False
    )
    cfg.neck.update(in_channels=[12, 10, 9], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    cfg.test_cfg.rcnn.update(score_thr=0.0)
    if masks:
        cfg.roi_head.mask_roi_extractor.out_channels = 8
        cfg.roi_head.mask_head.update(in_channels=8, conv_out_channels=8)
    torch.manual_seed(0)
    return MODELS.build(cfg)


def sample(**metainfo):
    meta = dict(img_shape=(64, 64), ori_shape=(64, 64), scale_factor=(1.0, 1.0), **metainfo)
    made = DetDataSample(metainfo=meta)
    mask = np.zeros((1, 64, 64), dtype=np.uint8)
    mask[:, 22:38, 22:38] = 1
    made.gt_instances = InstanceData(
        bboxes=torch.tensor([[20.0, 20.0, 40.0, 40.0]]),
        labels=torch.zeros(1, dtype=torch.long),
        masks=BitmapMasks(mask, 64, 64),
    )
    return made


def test_mask_loss_has_gradients_in_the_backbone(root):
    model = build(root, masks=True).train()
    data = dict(inputs=[torch.rand(3, 64, 64) * 255], data_samples=[sample()])
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    assert 0 < losses["loss_mask"].item() <= 1
    losses["loss_mask"].backward()
    assert model.backbone.conv0.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("scale", [1.0, 2.0])
@torch.no_grad()
def test_boxes_equal_those_of_the_detector_without_masks(root, scale):
    model, plain = build(root, masks=True).eval(), build(root, masks=False).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    image = torch.rand(3, 64, 64) * 255
    results = []
    for detector in (model, plain):
        one = copy.deepcopy(sample())
        one.set_metainfo(dict(scale_factor=(scale, scale)))
        data = dict(inputs=[image], data_samples=[one])
        results.append(detector.test_step(data)[0].pred_instances)
    assert "masks" not in results[0] and len(results[0])
    assert torch.equal(results[0].bboxes, results[1].bboxes)
    assert torch.equal(results[0].scores, results[1].scores)
