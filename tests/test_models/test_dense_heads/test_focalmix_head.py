"""Tests of ``FocalMixHead`` on small feature maps."""

import math

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

import mmdet_lesion.models  # noqa: F401
from mmdet_lesion.models.losses import soft_focal_loss

ASSIGNER = dict(
    type="MaxIoUAssigner",
    pos_iou_thr=0.3,
    neg_iou_thr=0.1,
    min_pos_iou=0.01,
    iou_calculator=dict(type="BboxOverlaps3D"),
)


def build(strides=(4,), sizes=(4,), **kwargs):
    torch.manual_seed(0)
    cfg = dict(
        type="FocalMixHead",
        in_channels=3,
        feat_channels=4,
        anchor_generator=dict(type="AnchorGenerator3D", strides=strides, sizes=sizes),
        bbox_coder=dict(type="DeltaXYZWHDBBoxCoder"),
        loss_cls=dict(type="SoftFocalLoss"),
        loss_bbox=dict(type="SmoothL1Loss", beta=1.0),
        train_cfg=dict(assigner=ASSIGNER),
    )
    head = MODELS.build({**cfg, **kwargs})
    head.init_weights()
    return head


def truth(*boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    return InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))


def feats(n=2, size=(2, 2, 2), levels=1):
    torch.manual_seed(1)
    return [torch.randn(n, 3, *(edge // 2**i for edge in size)) for i in range(levels)]


def test_output_shapes_and_prior():
    head = build(strides=(2, 4), sizes=(4, 8))
    logits, offsets = head(feats(size=(4, 2, 2), levels=2))
    assert [tuple(m.shape) for m in logits] == [(2, 1, 4, 2, 2), (2, 1, 2, 1, 1)]
    assert [tuple(m.shape) for m in offsets] == [(2, 6, 4, 2, 2), (2, 6, 2, 1, 1)]
    assert head.objectness.bias.item() == pytest.approx(-math.log(99))
    assert head.flatten(logits).sigmoid().mean().item() == pytest.approx(0.01, rel=0.1)


def test_flatten_has_the_order_of_the_anchors():
    head = build(strides=(2, 4), sizes=(4, 8))
    anchors = head.get_anchors((4, 8, 4))
    # Maps of the centers of their locations must flatten to the centers of the anchors.
    maps = []
    for stride in (2, 4):
        z, y, x = torch.meshgrid(
            *(torch.arange(edge // stride) * stride + stride / 2 for edge in (4, 8, 4)),
            indexing="ij",
        )
        maps.append(torch.stack((x, y, z))[None])
    centers = (anchors[:, :3] + anchors[:, 3:]) / 2
    assert torch.equal(head.flatten(maps)[0], centers)


def test_targets_of_labeled_and_unlabeled_patches():
    """Eight cubes of 4 in a patch of 8: one labeled patch, one unlabeled, one without boxes."""
    head = build()
    anchors = head.get_anchors((8, 8, 8))
    assert len(anchors) == 8
    # The box covers anchor 0 (x, y, z all low) shifted by 1 in x: IoU 48 / 80 = 0.6 with it, and
    # 16 / 112 = 0.14 with anchor 1, its neighbor in x: unused.
    targets = head.get_targets(anchors, [truth([1, 0, 0, 5, 4, 4]), None, truth()])
    assert targets.scores.tolist() == [[1, 0, 0, 0, 0, 0, 0, 0], [0] * 8, [0] * 8]
    assert targets.used[0].tolist() == [True, False, *[True] * 6]
    assert targets.used[1:].all()
    assert targets.positives.tolist() == [[0, 0]]
    assert targets.bboxes.tolist() == [[1, 0, 0, 5, 4, 4]]


def test_each_box_has_its_own_anchors():
    head = build()
    boxes = [[0.0, 0, 0, 4, 4, 4], [4.5, 4.5, 4.5, 5.5, 5.5, 5.5]]
    targets = head.get_targets(head.get_anchors((8, 8, 8)), [truth(), truth(*boxes)])
    # The second box, of one voxel, lies in the last anchor: IoU 1 / 64, but its best.
    assert targets.positives.tolist() == [[1, 0], [1, 7]]
    assert targets.bboxes.tolist() == boxes


def test_batch_without_labeled_patches_has_no_positives():
    head = build()
    targets = head.get_targets(head.get_anchors((8, 8, 8)), [None, None])
    assert targets.positives.shape == (0, 2)
    assert targets.bboxes.shape == (0, 6)


# Two anchors are positive, and with guesses above 0.5 all eight of the unlabeled patch.
@pytest.mark.parametrize(("guess", "divisor"), [(0.3, 2.0), (0.6, 8.0)])
def test_loss_of_labeled_patches_and_divisors(guess, divisor):
    head, x = build(), feats(3)
    anchors = head.get_anchors((8, 8, 8))
    targets = head.get_targets(
        anchors, [truth([1, 0, 0, 5, 4, 4]), truth([0, 0, 0, 4, 4, 4]), None]
    )
    targets.scores[2] = guess
    labeled = torch.tensor([True, True, False])
    losses = head.loss(x, anchors, targets, labeled)
    logits, offsets = (head.flatten(maps) for maps in head(x))
    each = soft_focal_loss(logits.squeeze(-1), targets.scores) * targets.used
    # Two positive anchors in all.
    torch.testing.assert_close(losses["loss_cls"], each[:2].sum() / 2)
    assert losses.keys() == {"loss_cls", "loss_bbox"}
    assert head.avg_factors(targets, labeled) == (2.0, divisor)
    wanted = torch.tensor([[0.25, 0, 0, 0, 0, 0], [0.0] * 6])
    difference = (offsets[[0, 1], [0, 0]] - wanted).abs()
    smooth = torch.where(difference < 1, difference**2 / 2, difference - 0.5)
    torch.testing.assert_close(losses["loss_bbox"], smooth.sum() / 2)
    logits, offsets = head(x)
    halved = head.loss_by_feat(logits, offsets, anchors, targets, labeled, 4.0)
    for key, value in losses.items():
        torch.testing.assert_close(halved[key], value / 2)


def test_loss_without_unlabeled_patches_and_positives():
    head, x = build(), feats(1)
    anchors = head.get_anchors((8, 8, 8))
    losses = head.loss(x, anchors, head.get_targets(anchors, [truth()]), torch.tensor([True]))
    assert losses.keys() == {"loss_cls", "loss_bbox"}
    assert losses["loss_bbox"] == 0
    sum(losses.values()).backward()
    # DDP requires a gradient for every weight.
    assert all(parameter.grad is not None for parameter in head.parameters())


def test_predict_by_feat_returns_the_best_boxes_of_the_core():
    head = build(strides=(4, 8), sizes=(4, 8))
    logits = [torch.full((1, 1, 2, 2, 4), -5.0), torch.full((1, 1, 1, 1, 2), -5.0)]
    offsets = [torch.zeros(1, 6, 2, 2, 4), torch.zeros(1, 6, 1, 1, 2)]
    logits[0][0, 0, 0, 1, 0] = 3.0  # left half
    logits[0][0, 0, 1, 0, 3] = 2.0
    logits[1][0, 0, 0, 0, 1] = 1.0
    offsets[0][0, 0, 1, 0, 3] = 0.5

    def predict(core, nms_pre=5, score_thr=0.5):
        cfg = dict(nms_pre=nms_pre, score_thr=score_thr)
        (instances,) = head.predict_by_feat(logits, offsets, [core], cfg)
        return instances

    right = (slice(0, 8), slice(0, 8), slice(8, 16))
    instances = predict(right)
    torch.testing.assert_close(instances.scores, torch.tensor([2.0, 1.0]).sigmoid())
    # Location (z 1, y 0, x 3) of stride 4, shifted by half its edge in x; then the coarse one.
    assert instances.bboxes.tolist() == [[14, 0, 4, 18, 4, 8], [8, 0, 0, 16, 8, 8]]
    assert instances.labels.tolist() == [0, 0]
    whole = (slice(0, 8), slice(0, 8), slice(0, 16))
    assert predict(whole, nms_pre=1).bboxes.tolist() == [[0, 4, 0, 4, 8, 4]]
    instances = predict(right, score_thr=0.99)
    assert instances.bboxes.shape == (0, 6)
    assert instances.scores.shape == (0,)


@pytest.mark.parametrize("stacked_convs", [0, 1, 2])
@pytest.mark.parametrize("norm", [None, dict(type="GN", num_groups=2)])
@torch.no_grad()
def test_boxes_of_candidates_equal_those_of_the_whole_maps(monkeypatch, stacked_convs, norm):
    head = build((4, 8), (4, 8), stacked_convs=stacked_convs, norm_cfg=norm)
    head.init_weights()
    for parameter in head.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = [torch.randn(2, 3, *size)
         for size in ((12, 10, 14), (6, 5, 7))]  # fmt: skip
    cores = [(slice(0, 48), slice(0, 40), slice(0, 56)), (slice(8, 32), slice(8, 40), slice(0, 24))]
    cfg = dict(nms_pre=40, score_thr=0.0)
    expected = head.predict_by_feat(*head(x), cores, cfg)
    dense = []
    forward = head.forward_bbox
    monkeypatch.setattr(head, "forward_bbox", lambda maps: dense.append(maps) or forward(maps))
    found = head.predict(x, cores, cfg)
    for one, other in zip(found, expected, strict=True):
        assert len(one) == 40
        torch.testing.assert_close(one.scores, other.scores)
        torch.testing.assert_close(one.bboxes, other.bboxes, rtol=1e-4, atol=1e-4)
    # Group norm depends on the whole map.
    assert dense or norm is None or not stacked_convs


@torch.no_grad()
def test_few_offsets_are_computed_locally(monkeypatch):
    head = build()
    x = torch.randn(3, 12, 10, 14)
    # Corners and edges of the map, where the convolutions pad it.
    where = torch.tensor([0, 13, 140, 12 * 140 - 1, 5 * 140 + 4 * 14 + 6])
    expected = head.forward_bbox([x[None]])[0][0].flatten(1)[:, where].t()
    monkeypatch.setattr(head, "forward_bbox", None)
    torch.testing.assert_close(head.offsets_at(x, where), expected, rtol=1e-4, atol=1e-5)
    assert head.offsets_at(x, where[:0]).shape == (0, 6)
