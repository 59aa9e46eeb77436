"""Tests of the focal loss for soft targets."""

import pytest
import torch
from mmdet.registry import MODELS

from mmdet_lesion.models.losses import SoftFocalLoss, soft_focal_loss


def formula(p, y, a0=0.05, a1=0.95, gamma=2.0):
    entropy = -y * p.log() - (1 - y) * (1 - p).log()
    return (a0 + y * (a1 - a0)) * (y - p).abs() ** gamma * entropy


def focal_loss(p, y, a0=0.05, a1=0.95, gamma=2.0):
    """Focal loss for y in {0, 1} (Lin et al., equations 4 and 5)."""
    p_t = torch.where(y == 1, p, 1 - p)
    alpha_t = torch.where(y == 1, torch.full_like(p, a1), torch.full_like(p, a0))
    return -alpha_t * (1 - p_t) ** gamma * p_t.log()


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


LOGITS = [-6.0, -2.0, -0.3, 0.0, 0.7, 2.5, 5.0]


def test_values():
    # p = y = 1/2: |y - p| = 0. p = 1/2, y = 1: 0.95 / 4 * log 2. p = 1/2, y = 0: 0.05 / 4 * log 2.
    # p = 1/2, y = 3/4: (0.05 + 0.675) / 16 * log 2.
    loss = soft_focal_loss(torch.zeros(4), torch.tensor([0.5, 1.0, 0.0, 0.75]))
    expected = torch.tensor([0.0, 0.95 / 4, 0.05 / 4, 0.725 / 16]) * 0.6931471805599453
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 2.0, 3.5])
def test_value_and_gradient_equal_the_formula(gamma):
    x, y = leaf(LOGITS), torch.linspace(0.03, 0.97, len(LOGITS), dtype=torch.float64)
    other = leaf(LOGITS)
    mine = soft_focal_loss(x, y, gamma=gamma)
    expected = formula(other.sigmoid(), y, gamma=gamma)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
    mine.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("soft_alpha", [True, False])
@pytest.mark.parametrize("soft_beta", [True, False])
def test_equals_the_focal_loss_at_hard_targets(soft_alpha, soft_beta):
    x, other = leaf(LOGITS), leaf(LOGITS)
    y = torch.tensor([0, 1, 0, 1, 0, 1, 0], dtype=torch.float64)
    mine = soft_focal_loss(x, y, soft_alpha=soft_alpha, soft_beta=soft_beta)
    expected = focal_loss(other.sigmoid(), y)
    torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-16)
    mine.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-10, atol=1e-16)


def test_gradient_equals_finite_differences():
    y = torch.tensor([0.1, 0.4, 0.6, 0.95, 1.0, 0.0], dtype=torch.float64)
    x = leaf([-3.0, -1.0, 1.5, 0.2, -2.0, 2.0])
    assert torch.autograd.gradcheck(lambda x: soft_focal_loss(x, y), x)


def test_hard_factors_use_the_rounded_target():
    x, y = leaf(LOGITS), torch.full((len(LOGITS),), 0.7, dtype=torch.float64)
    p = x.sigmoid()
    entropy = -y * p.log() - (1 - y) * (1 - p).log()
    torch.testing.assert_close(
        soft_focal_loss(x, y, soft_alpha=False), 0.95 * (y - p) ** 2 * entropy
    )
    torch.testing.assert_close(
        soft_focal_loss(x, y, soft_beta=False), (0.05 + 0.7 * 0.9) * (1 - p) ** 2 * entropy
    )
    # One half is not positive.
    half = torch.full_like(y, 0.5)
    entropy = -0.5 * p.log() - 0.5 * (1 - p).log()
    torch.testing.assert_close(
        soft_focal_loss(x, half, soft_alpha=False, soft_beta=False), 0.05 * p**2 * entropy
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_finite_at_extreme_logits(dtype):
    end = torch.finfo(torch.float16).max
    x = torch.tensor([-end, end, -end, end, -end, end, 0.0], dtype=dtype, requires_grad=True)
    y = torch.tensor([0.0, 0, 1, 1, 0.5, 0.5, 0.5], dtype=dtype)
    loss = soft_focal_loss(x, y)
    assert loss.dtype == torch.float32
    assert loss.isfinite().all()
    assert loss[0] == loss[3] == 0
    torch.testing.assert_close(loss[2], torch.tensor(0.95 * x[1].item()))
    loss.sum().backward()
    assert x.grad.isfinite().all()


def test_small_losses_do_not_underflow():
    # In float32 1 - sigmoid(20) is 0, but the loss at y = 1 is not.
    loss = soft_focal_loss(torch.tensor([20.0]), torch.tensor([1.0]))
    expected = soft_focal_loss(torch.tensor([20.0]).double(), torch.tensor([1.0]))
    torch.testing.assert_close(loss.double(), expected, rtol=1e-4, atol=0)
    assert loss > 0


def test_reductions_weights_and_average_factor():
    module = MODELS.build(dict(type="SoftFocalLoss", loss_weight=2.0))
    x, y = torch.tensor([[0.0, 1.0], [2.0, -1.0]]), torch.tensor([[1.0, 0.2], [0.0, 0.0]])
    each = 2 * soft_focal_loss(x, y)
    weight = torch.tensor([[1.0, 0.0], [1.0, 3.0]])
    torch.testing.assert_close(module(x, y), each.mean())
    torch.testing.assert_close(module(x, y, reduction_override="none"), each)
    total = (each * weight).sum()
    torch.testing.assert_close(module(x, y, weight, reduction_override="sum"), total)
    torch.testing.assert_close(module(x, y, weight, avg_factor=5), total / 5)


def test_invalid_arguments():
    with pytest.raises(ValueError, match="expected equal shapes"):
        SoftFocalLoss()(torch.zeros(2), torch.zeros(2, 1))
    with pytest.raises(ValueError, match="alpha="):
        SoftFocalLoss(alpha=(0.05,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_value_and_gradient_are_the_same_on_every_device(device, dtype):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 1000, generator=generator).mul(5).to(dtype)
    target = torch.rand(4, 1000, generator=generator)
    results = []
    for where in ("cpu", device):
        x = logits.to(where, copy=True).requires_grad_()
        loss = SoftFocalLoss()(x, target.to(where), avg_factor=7.0)
        loss.backward()
        results.append((loss.detach().cpu(), x.grad.cpu()))
    for found, expected in zip(results[1], results[0]):
        # The gradient has the type of the logits.
        half = expected.dtype == torch.float16
        torch.testing.assert_close(found, expected, rtol=2e-3 if half else 1e-5, atol=1e-6)
