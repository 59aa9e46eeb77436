import pytest
import torch
from mmdet.registry import MODELS

import mmdet_lesion.models  # noqa: F401


def test_by_hand_on_the_class_of_each_roi():
    criterion = MODELS.build(dict(type="MaskDiceLoss", eps=0.0, loss_weight=2.0))
    logits = torch.full((2, 3, 1, 4), 20.0)
    # The first RoI predicts half of its mask and as much beside it, the second all of it.
    logits[0, 2, 0] = torch.tensor([20.0, 20.0, -20.0, -20.0])
    targets = torch.tensor([[[0.0, 1.0, 1.0, 0.0]], [[1.0, 1.0, 1.0, 1.0]]])
    loss = criterion(logits, targets, torch.tensor([2, 0]))
    assert loss.item() == pytest.approx(2 * (0.5 + 0.0) / 2, abs=1e-6)


def test_an_empty_target_is_finite():
    logits = torch.zeros(1, 1, 2, 2, requires_grad=True)
    criterion = MODELS.build(dict(type="MaskDiceLoss"))
    loss = criterion(logits, torch.zeros(1, 2, 2), torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(1 - 0.01 / 2.01)
    assert logits.grad.isfinite().all()
