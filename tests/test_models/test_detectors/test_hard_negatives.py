"""Tests of detectors that are trained with hard negatives."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmdet.structures.mask import BitmapMasks
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmdet_lesion.models.task_modules import HardNegativeSampler

HARD = torch.tensor([[36.0, 8, 60, 32]])
LESION = torch.tensor([[4.0, 4, 24, 24]])
ELSEWHERE = torch.tensor([[0.0, 40, 20, 60]])
# A plain Faster R-CNN, and NegativeMaskRPNHead with MaskTrainedRoIHead.
CONFIGS = ("uld/mean_teacher_hard_negatives_deeplesion", "partial_label/mask_rcnn_3slice_neg_mask")


def build(root, name):
    """A tiny detector, whose samplers prefer hard negatives as in the first config."""
    register_all_modules(init_default_scope=True)
    cfg = Config.fromfile(root / "configs" / f"{name}.py").model
    cfg.backbone.update(
        growth_rate=4, block_config=(1, 1, 1), num_init_features=8, init_cfg=None, norm_eval=False
    )
    cfg.neck.update(in_channels=[12, 10, 9], out_channels=8)
    cfg.rpn_head.update(in_channels=8, feat_channels=8)
    cfg.roi_head.bbox_roi_extractor.out_channels = 8
    cfg.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    if "mask_head" in cfg.roi_head:
        cfg.roi_head.mask_roi_extractor.out_channels = 8
        cfg.roi_head.mask_head.update(in_channels=8, conv_out_channels=8)
        for part in (cfg.train_cfg.rpn, cfg.train_cfg.rcnn):
            part.assigner.type, part.sampler.type = (
                "IgnoreAwareMaxIoUAssigner",
                "HardNegativeSampler",
            )
    torch.manual_seed(0)
    return MODELS.build(cfg).train()


def batch(model, lesions, hard):
    """One image with boxes of lesions and of hard negatives."""
    sample = DetDataSample(metainfo=dict(img_shape=(64, 64), ori_shape=(64, 64)))
    masks = np.zeros((len(lesions), 64, 64), dtype=np.uint8)
    masks[:, 4:24, 4:24] = 1
    sample.gt_instances = InstanceData(
        bboxes=lesions,
        labels=torch.zeros(len(lesions), dtype=torch.long),
        masks=BitmapMasks(masks, 64, 64),
    )
    sample.ignored_instances = InstanceData(bboxes=hard, labels=torch.full((len(hard),), -1))
    slices = model.backbone.num_slices
    data = dict(inputs=[torch.rand(slices, 64, 64) * 255], data_samples=[sample])
    return model.data_preprocessor(data, True)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("num_lesions", [0, 1])
def test_half_of_the_negatives_lie_on_hard_negatives(root, monkeypatch, name, num_lesions):
    model = build(root, name)
    # 60 proposals on the hard negative, 60 off it.
    proposals = torch.cat((HARD.repeat(60, 1), ELSEWHERE.repeat(60, 1))) + torch.rand(120, 4)
    found = InstanceData(bboxes=proposals, scores=torch.ones(120))
    monkeypatch.setattr(model.rpn_head, "predict_by_feat", lambda *_, **__: [found])
    drawn = []
    sample = HardNegativeSampler.sample

    def spy(self, *args, **kwargs):
        drawn.append(sample(self, *args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(HardNegativeSampler, "sample", spy)
    losses = model(**batch(model, LESION[:num_lesions], HARD), mode="loss")
    total, log = model.parse_losses(losses)
    assert torch.isfinite(total) and {"loss_rpn_cls", "loss_cls"} <= log.keys()
    # First the RPN's anchors, then the R-CNN's proposals.
    assert len(drawn) == 2
    for result in drawn:
        overlaps = bbox_overlaps(result.neg_priors, HARD).flatten()
        assert int((overlaps >= 0.5).sum()) == len(overlaps) // 2 > 8
        assert len(result.pos_inds) >= num_lesions


@pytest.mark.parametrize("num_hard", [0, 1])
def test_anchors_on_hard_negatives_are_background_in_the_loss(root, num_hard):
    model = build(root, CONFIGS[0])
    seen = []
    loss = model.rpn_head.loss_by_feat_single

    def spy(cls_score, bbox_pred, anchors, labels, label_weights, *args, **kwargs):
        seen.append((anchors[0], labels[0], label_weights[0]))
        return loss(cls_score, bbox_pred, anchors, labels, label_weights, *args, **kwargs)

    model.rpn_head.loss_by_feat_single = spy
    model(**batch(model, LESION[:0], HARD[:num_hard]), mode="loss")
    ((anchors, labels, weights),) = seen
    on_hard = bbox_overlaps(anchors, HARD).flatten() >= 0.5
    # Few anchors lie on it, so that hardly any is drawn by chance.
    assert on_hard.float().mean() < 0.05
    assert (labels == 1).all() and weights.sum() == 32
    assert weights[on_hard].sum() == 16 if num_hard else weights[on_hard].sum() < 8
