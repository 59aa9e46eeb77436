import logging
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmdet_lesion import InputError
from mmdet_lesion.engine.hooks import FiniteOutputsHook


class Head(nn.Module):
    def forward(self, x):
        return [torch.zeros(2)], [1 / x]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.rpn_head = Head()

    def forward(self, value):
        self.rpn_head(torch.tensor([1.0, value]))


@pytest.fixture
def runner():
    return SimpleNamespace(
        model=Detector(), logger=logging.getLogger("test"), _load_from="a.pth", work_dir="work"
    )


def test_a_test_ends_at_the_first_sample_with_infinity(runner):
    hook = FiniteOutputsHook()
    hook.before_test_epoch(runner)
    runner.model(2.0)
    hook.after_test_iter(runner, 0)
    runner.model(0.0)
    with pytest.raises(InputError, match="a.pth: rpn_head returns NaN or infinity for test sample"):
        hook.after_test_iter(runner, 1)
    assert not runner.model.rpn_head._forward_hooks


@pytest.mark.parametrize(("value", "warnings"), [(2.0, 0), (0.0, 1)])
def test_validation_warns_once_and_training_is_not_watched(runner, caplog, value, warnings):
    hook = FiniteOutputsHook()
    hook.before_val_epoch(runner)
    runner.model(value)
    runner.model(value)
    hook.after_val_epoch(runner)
    runner.model(0.0)
    hook.after_val_epoch(runner)
    assert len(caplog.records) == warnings
    assert all("rpn_head returns NaN" in record.message for record in caplog.records)
