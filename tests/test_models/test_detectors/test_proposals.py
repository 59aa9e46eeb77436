"""Tests that ``predict_proposals`` equals the prediction of the RPN head."""

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict

from mmdet_lesion.models.detectors.proposals import CANDIDATES, predict_proposals
from mmdet_lesion.models.layers.winograd_conv import TILE, WinogradConv


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


@pytest.mark.parametrize("nms_pre", [600, 30, -1])
@pytest.mark.parametrize("share", [1.0, 0.3, 0.0], ids=["all tiles", "some tiles", "no tile"])
def test_proposals_in_tiles(nms_pre, share):
    head = build(nms_pre=nms_pre)
    generator = torch.Generator().manual_seed(1)
    # The last tiles exceed the map.
    x = torch.randn(3, 4, 14, 17, generator=generator)
    tiles = torch.rand(3, 4, 5, generator=generator) < share
    samples = [DetDataSample(metainfo=dict(img_shape=(56, 68))) for _ in range(3)]
    outside = ~tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)[:, :14, :17]
    with torch.no_grad():
        scores, offsets = head([x])
        scores[0].masked_fill_(outside[:, None], -torch.inf)
        metas = [s.metainfo for s in samples]
        expected = head.predict_by_feat(scores, offsets, batch_img_metas=metas)
        found = predict_proposals(head, [x], samples, WinogradConv(head.rpn_conv), tiles)
    for one, other in zip(found, expected, strict=True):
        other = other[other.scores > 0]
        assert len(other) == 10 * (share > 0)
        torch.testing.assert_close(one.bboxes, other.bboxes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(one.scores, other.scores)
