"""Tests that ``predict_proposals`` equals the prediction of the RPN head."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict

from mmdet_lesion.models.detectors.proposals import CANDIDATES, predict_proposals


def build(strides=(4,), **test_cfg):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    head = MODELS.build(
        dict(
            type="RPNHead",
            in_channels=4,
            feat_channels=4,
            anchor_generator=dict(
                type="AnchorGenerator", scales=[4, 8], ratios=[0.5, 1, 2], strides=list(strides)
            ),
        )
    )
    cfg = dict(nms_pre=600, max_per_img=10, nms=dict(type="nms", iou_threshold=0.7))
    head.test_cfg = ConfigDict({**cfg, "min_bbox_size": 0, **test_cfg})
    torch.nn.init.normal_(head.rpn_cls.weight)
    return head


def candidates(head, monkeypatch):
    """List of the number of candidates of each call of ``predict_by_feat``."""
    seen = []
    look = head.predict_by_feat
    monkeypatch.setattr(
        head,
        "predict_by_feat",
        lambda *args, cfg=None, **kw: (
            seen.append((cfg or head.test_cfg).nms_pre) or look(*args, cfg=cfg, **kw)
        ),
    )
    return seen


def run(head, strides=(4,)):
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 4, 64 // s, 64 // s, generator=generator) for s in strides]
    samples = [DetDataSample(metainfo=dict(img_shape=(64, 64))) for _ in range(2)]
    with torch.no_grad():
        return predict_proposals(head, maps, samples), head.predict(maps, samples)


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.bboxes, other.bboxes)
        assert torch.equal(one.scores, other.scores)


def test_few_candidates_suffice(monkeypatch):
    head = build()
    seen = candidates(head, monkeypatch)
    assert_same(*run(head))
    assert seen == [10 * CANDIDATES, 600]  # the second look is predict's


def test_all_candidates_are_used_if_few_do_not_suffice(monkeypatch):
    head = build(nms=dict(type="nms", iou_threshold=0.02))
    seen = candidates(head, monkeypatch)
    assert_same(*run(head))
    assert seen == [10 * CANDIDATES, 600, 600]


@pytest.mark.parametrize(
    "strides, cfg",
    [
        ((4, 8), {}),
        ((4,), dict(nms=dict(type="soft_nms", iou_threshold=0.5))),
        ((4,), dict(nms_pre=10 * CANDIDATES)),
    ],
    ids=["several maps", "scores change", "few from the start"],
)
def test_unsupported_settings_use_all_candidates(monkeypatch, strides, cfg):
    head = build(strides, **cfg)
    seen = candidates(head, monkeypatch)
    assert_same(*run(head, strides))
    assert seen == [head.test_cfg.nms_pre] * 2
