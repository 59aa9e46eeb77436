import pytest
import torch
from mmdet.registry import TASK_UTILS

from mmdet_lesion.models.dense_heads import FocalMixHead
from mmdet_lesion.models.semi_supervised import binary_entropy, draw_symmetries
from mmdet_lesion.models.semi_supervised.objectives.functional import (
    cross_entropy,
    draw_symmetry,
    entropy_of_logits,
    join_levels,
    kl_divergence,
    masked_mean,
    move_anchors,
    pseudo_labels,
    seeded,
    split_levels,
    square_error,
)
from mmdet_lesion.structures import CUBE_SYMMETRIES

STRIDES, SIZE = (2, 4), (4, 8, 12)


def test_anchors_are_in_the_order_of_the_head():
    maps = [torch.rand(2, 1, 2, 4, 6), torch.rand(2, 1, 1, 2, 3)]
    values = join_levels([level.squeeze(1) for level in maps])
    assert torch.equal(values, FocalMixHead.flatten(maps).squeeze(-1))
    for level, part in zip(maps, split_levels(values, SIZE, STRIDES)):
        assert torch.equal(level.squeeze(1), part)


def test_levels_are_joined_in_at_least_float32():
    for given, expected in (("half", "float32"), ("float32", "float32"), ("float64", "float64")):
        values = join_levels([torch.rand(1, 2, 2, 2).to(getattr(torch, given))])
        assert values.dtype == getattr(torch, expected)


def test_anchors_move_like_their_boxes():
    generator = TASK_UTILS.build(dict(type="AnchorGenerator3D", strides=STRIDES, sizes=(4, 8)))

    def boxes_of(size):
        sizes = [[edge // stride for edge in size] for stride in STRIDES]
        return torch.cat(generator.grid_priors(sizes))

    boxes = boxes_of(SIZE)
    index = torch.arange(len(boxes))
    for symmetry in CUBE_SYMMETRIES:
        # Moved indices say which anchor of the patch each anchor of the moved patch is.
        moved = move_anchors(index, symmetry, SIZE, STRIDES)
        expected = boxes_of(symmetry.size(SIZE))
        torch.testing.assert_close(symmetry.apply_boxes(boxes, SIZE)[moved], expected)


def test_masked_mean():
    values = torch.tensor([1.0, 2.0, torch.nan, 6.0], requires_grad=True)
    mean = masked_mean(values, torch.tensor([True, True, False, True]))
    mean.backward()
    assert mean.item() == 3
    assert values.grad.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    assert masked_mean(values, torch.zeros(4, dtype=torch.bool)).item() == 0


def test_masked_square_error_has_a_finite_gradient():
    scores = torch.tensor([0.5, 0.25, 0.75], requires_grad=True)
    targets = torch.tensor([0.25, float("nan"), float("inf")])
    losses = square_error(scores, targets)
    assert losses.tolist() == [0.0625, 0, 0]
    masked_mean(losses, torch.tensor([True, False, True])).backward()
    assert scores.grad.tolist() == [0.25, 0, 0]


@pytest.mark.parametrize(
    "loss",
    [cross_entropy, lambda logits, targets: kl_divergence(targets, logits)],
    ids=["cross_entropy", "kl_divergence"],
)
def test_masked_losses_of_logits_have_a_finite_gradient(loss):
    logits = torch.tensor([0.5, 0.25, -0.75], requires_grad=True)
    losses = loss(logits, torch.tensor([0.25, float("nan"), float("inf")]))
    assert losses[0] == loss(logits[:1], torch.tensor([0.25]))
    masked_mean(losses, torch.tensor([True, False, False])).backward()
    slope = logits[0].sigmoid().item() - 0.25
    assert logits.grad.tolist() == pytest.approx([slope, 0, 0])


def test_entropy_of_logits():
    logits = torch.linspace(-8, 8, 33, dtype=torch.float64)
    torch.testing.assert_close(entropy_of_logits(logits), binary_entropy(logits.sigmoid()))
    extreme = torch.tensor([-200.0, 0.0, 200.0], requires_grad=True)
    entropy_of_logits(extreme).sum().backward()
    assert extreme.grad.isfinite().all()


def test_kl_divergence():
    targets = torch.tensor([0.0, 0.3, 0.9, 1.0], dtype=torch.float64)
    logits = torch.tensor([-1.0, 0.5, 2.0, 3.0], dtype=torch.float64)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Bernoulli(targets), torch.distributions.Bernoulli(logits=logits)
    )
    torch.testing.assert_close(kl_divergence(targets, logits), expected)
    assert kl_divergence(logits.sigmoid(), logits).abs().max() < 1e-15


def test_pseudo_labels():
    scores = torch.tensor([0.0, 0.05, 0.06, 0.94, 0.95, 1.0])
    targets, used = pseudo_labels(scores, 0.95, 0.05)
    assert targets.tolist() == [0, 0, 0, 0, 1, 1]
    assert used.tolist() == [True, True, False, False, True, True]
    targets, used = pseudo_labels(torch.tensor([torch.nan]), 0.95, 0.05)
    assert targets.isnan().all() and not used.any()


def test_draws_follow_the_generator_and_leave_the_global_one_alone():
    state = torch.random.get_rng_state()
    drawn = [
        [draw_symmetry(generator) for _ in range(5)]
        for generator in (torch.Generator().manual_seed(3), torch.Generator().manual_seed(3))
    ]
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) > 1
    assert torch.equal(torch.random.get_rng_state(), state)
    with seeded(None):
        draw_symmetries(1)
    assert not torch.equal(torch.random.get_rng_state(), state)
