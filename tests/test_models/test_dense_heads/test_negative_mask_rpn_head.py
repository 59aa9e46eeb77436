import copy
import math

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

import mmdet_lesion.models  # noqa: F401
from mmdet_lesion.engine.runner.resumable_loader import seed_generators

SIZE, STRIDE = 32, 4
META = dict(img_shape=(SIZE, SIZE), ori_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))


def build(kind="NegativeMaskRPNHead", num=64, neg_iou_thr=0.3, **kwargs):
    register_all_modules(init_default_scope=True)
    torch.manual_seed(0)
    assigner = dict(
        type="MaxIoUAssigner", pos_iou_thr=0.7, neg_iou_thr=neg_iou_thr, min_pos_iou=0.3
    )
    sampler = dict(type="RandomSampler", num=num, pos_fraction=0.5, add_gt_as_proposals=False)
    train_cfg = dict(assigner=assigner, sampler=sampler, allowed_border=-1, pos_weight=-1)
    anchors = dict(type="AnchorGenerator", scales=[2], ratios=[1.0], strides=[STRIDE])
    head = dict(type=kind, in_channels=4, feat_channels=4, anchor_generator=anchors)
    return MODELS.build(ConfigDict(**head, train_cfg=train_cfg, **kwargs))


def instances(*boxes):
    bboxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return InstanceData(bboxes=bboxes, labels=torch.zeros(len(bboxes), dtype=torch.long))


# An anchor of the map: center at 8, side 8. With it 1 anchor is positive, 4 others overlap enough
# (IoU 1/3 with a shift by 4 pixels) to be neither, and 59 are negative.
LESION = [4.0, 4.0, 12.0, 12.0]
POSITIVE, NEITHER = 2 * 8 + 2, [8 + 2, 16 + 1, 16 + 3, 24 + 2]
NEGATIVES = [i for i in range(64) if i not in (POSITIVE, *NEITHER)]


def loss(head, scores, images=([LESION],)):
    deltas = torch.zeros(len(images), 4, 8, 8)
    gts = [instances(*boxes) for boxes in images]
    return head.loss_by_feat([scores], [deltas], gts, [META] * len(images))


@pytest.mark.parametrize("weight, mask", [(0.6, True), (0.3, False), (1.0, True)])
def test_loss_and_gradient(weight, mask):
    head = build(neg_weight=weight, neg_mask=mask)
    scores = torch.randn(1, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(5)
    losses = loss(head, scores)
    draws = np.random.default_rng((*b"negative mask", 0, 5)).standard_normal(len(NEGATIVES))
    kept = draws > 0 if mask else np.ones(len(NEGATIVES))
    assert 10 < kept.sum() < 60

    p = 1 / (1 + np.exp(-scores.detach().flatten().numpy()))
    terms = weight * kept * np.log(1 - p[NEGATIVES])
    expected = -(np.log(p[POSITIVE]) + terms.sum()) / 60
    assert losses["loss_rpn_cls"][0].item() == pytest.approx(expected, rel=1e-6)

    losses["loss_rpn_cls"][0].backward()
    gradient = np.zeros(64)
    gradient[POSITIVE] = (p[POSITIVE] - 1) / 60
    gradient[NEGATIVES] = weight * kept * p[NEGATIVES] / 60
    np.testing.assert_allclose(scores.grad.flatten().numpy(), gradient, rtol=1e-6)
    if mask:
        assert losses["rpn_negatives_kept"].item() == pytest.approx(kept.mean())
    else:
        assert "rpn_negatives_kept" not in losses


def test_disabled_mask_is_bitwise_equal_to_rpn_head():
    features = [torch.randn(2, 4, 8, 8)]
    gts, metas = [instances(LESION), instances()], [META] * 2
    results = []
    for kind, settings in (
        ("RPNHead", {}),
        ("NegativeMaskRPNHead", dict(neg_mask=False, neg_weight=1)),
    ):
        head = build(kind, num=16, **settings)
        torch.manual_seed(1)
        losses = head.loss_by_feat(*head(features), gts, metas)
        sum(losses["loss_rpn_cls"] + losses["loss_rpn_bbox"]).backward()
        gradients = {name: p.grad for name, p in head.named_parameters()}
        results.append((losses, gradients, torch.rand(3)))
    (plain, plain_gradients, plain_draw), (ours, gradients, draw) = results
    assert plain.keys() == ours.keys()
    assert all(torch.equal(plain[key][0], ours[key][0]) for key in plain)
    assert all(torch.equal(plain_gradients[name], gradients[name]) for name in gradients)
    assert torch.equal(plain_draw, draw)


def test_mask_does_not_change_box_loss_and_random_state():
    scores = torch.randn(1, 1, 8, 8)
    results = []
    for kind in ("RPNHead", "NegativeMaskRPNHead"):
        torch.manual_seed(2)
        losses = loss(build(kind, num=16), scores)
        results.append((losses["loss_rpn_bbox"][0], torch.rand(3)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 1.5])
def test_kept_fraction_follows_the_normal_distribution(threshold):
    head = build(mask_threshold=threshold)
    expected = 0.5 * math.erfc(threshold / math.sqrt(2))
    scores = torch.zeros(4, 1, 8, 8)
    shares = [loss(head, scores, [[LESION]] * 4)["rpn_negatives_kept"] for _ in range(100)]
    error = math.sqrt(expected * (1 - expected) / (100 * 4 * len(NEGATIVES)))
    assert abs(torch.stack(shares).mean().item() - expected) < 4 * error


def masks(head, steps):
    scores = torch.zeros(1, 1, 8, 8, requires_grad=True)
    return [
        torch.autograd.grad(loss(head, scores)["loss_rpn_cls"][0], scores)[0] for _ in range(steps)
    ]


def test_masks_differ_between_steps_and_follow_the_seed():
    torch.manual_seed(7)
    first = masks(build(), 3)
    # `build` sets the seed to 0.
    assert not torch.equal(first[0], first[1]) and not torch.equal(first[1], first[2])
    again = masks(build(), 3)
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    head = build()
    torch.manual_seed(8)
    assert not torch.equal(masks(head, 1)[0], first[0])


def test_reseeding_reproduces_the_mask_of_an_iteration():
    def iteration(head, number):
        seed_generators("iteration", (0, 0, number), cuda=False)
        return masks(head, 1)[0]

    whole, resumed = build(), build()
    drawn = [iteration(whole, number) for number in range(3)]
    assert torch.equal(iteration(resumed, 2), drawn[2])
    assert not torch.equal(drawn[0], drawn[1])


def test_head_can_be_copied():
    head = build()
    masks(head, 1)
    assert torch.equal(masks(copy.deepcopy(head), 1)[0], masks(head, 1)[0])


def test_batch_without_negatives():
    losses = loss(build(neg_iou_thr=0.0), torch.zeros(1, 1, 8, 8))
    assert losses["rpn_negatives_kept"] == 1
    # mmdet counts at least one negative.
    assert losses["loss_rpn_cls"][0].item() == pytest.approx(math.log(2) / 2)


@pytest.mark.parametrize("settings", [dict(neg_weight=-0.1), dict(mask_threshold=math.nan)])
def test_invalid_settings(settings):
    with pytest.raises(ValueError, match="NegativeMaskRPNHead: neg_weight"):
        build(**settings)


def test_losses_and_masks_are_the_same_on_every_device(device):
    features = torch.randn(2, 4, 8, 8)
    results = []
    for where in ("cpu", device):
        head = build(num=16).to(where)
        gts = [instances(LESION).to(where), instances().to(where)]
        # Sampler and mask use CPU generators.
        torch.manual_seed(3)
        losses = head.loss_by_feat(*head([features.to(where)]), gts, [META] * 2)
        (losses["loss_rpn_cls"][0] + losses["loss_rpn_bbox"][0]).backward()
        results.append(
            {
                "classes": losses["loss_rpn_cls"][0].detach(),
                "boxes": losses["loss_rpn_bbox"][0].detach(),
                "kept": losses["rpn_negatives_kept"],
                **{name: p.grad for name, p in head.named_parameters()},
            }
        )
    assert 0 < results[0]["kept"] < 1
    for name, expected in results[0].items():
        torch.testing.assert_close(results[1][name].cpu(), expected, rtol=1e-4, atol=1e-6)
