import pytest
import torch
from mmdet.registry import MODELS

import mmdet_lesion.models  # noqa: F401


def test_loss_of_the_class_of_each_roi():
    criterion = MODELS.build(dict(type="MaskDiceLoss", eps=0.0, loss_weight=2.0))
    logits = torch.full((2, 3, 1, 4), 20.0)
    # The first RoI covers half of its mask and as many other pixels, the second all of it.
    logits[0, 2, 0] = torch.tensor([20.0, 20.0, -20.0, -20.0])
    targets = torch.tensor([[[0.0, 1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])
    loss = criterion(logits, targets, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx(2 * (0.5 + 0.0) / 2, abs=1e-6)


def test_empty_target_gives_a_finite_loss():
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    criterion = MODELS.build(dict(type="MaskDiceLoss"))
    loss = criterion(logits, torch.zeros(1, 2, 2), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(1 - 0.01 / 2.01)
    assert logits.grad.isfinite().all()
