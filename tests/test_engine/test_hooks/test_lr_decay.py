import pytest
import torch
from mmengine.optim import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    PolyLR,
    StepLR,
)

from mmdet_lesion.engine.hooks.lr_decay import find_lr_decay

WARM_UP = dict(start_factor=0.001, begin=0, end=50, by_epoch=False)


def optimizer():
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.02)


@pytest.mark.parametrize(
    "build",
    [
        lambda o: [],
        lambda o: None,
        lambda o: [LinearLR(o, **WARM_UP)],
        lambda o: [ConstantLR(o, factor=0.1, begin=0, end=20, by_epoch=False)],
        lambda o: [MultiStepLR(o, milestones=[200], gamma=0.1, by_epoch=False)],
        lambda o: {"a": [LinearLR(o, **WARM_UP)]},
    ],
)
def test_constant_after_warm_up_is_no_decay(build):
    assert find_lr_decay(build(optimizer()), max_iters=100, max_epochs=1) is None


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (MultiStepLR, dict(milestones=[60], gamma=0.1, by_epoch=False)),
        (StepLR, dict(step_size=30, gamma=0.5, by_epoch=False)),
        (ExponentialLR, dict(gamma=0.99, by_epoch=False)),
        (CosineAnnealingLR, dict(T_max=100, by_epoch=False)),
        (PolyLR, dict(end=100, by_epoch=False)),
        (LinearLR, dict(start_factor=1.0, end_factor=0.5, end=100, by_epoch=False)),
        (OneCycleLR, dict(eta_max=0.1, total_steps=100, by_epoch=False)),
        (StepLR, dict(step_size=2, gamma=0.5, by_epoch=True)),
    ],
)
def test_a_decay_is_named(kind, arguments):
    one = optimizer()
    message = find_lr_decay([LinearLR(one, **WARM_UP), kind(one, **arguments)], 100, 5)
    assert message.startswith(f"{kind.__name__} lowers the learning rate from ")


def test_message_tells_when():
    one = optimizer()
    decay = MultiStepLR(one, milestones=[60], gamma=0.1, by_epoch=False)
    expected = "MultiStepLR lowers the learning rate from 0.02 to 0.002 at iteration 60"
    assert find_lr_decay([decay], 100, 1) == expected


def test_schedulers_and_optimizer_are_left_as_they_were():
    one = optimizer()
    schedulers = [LinearLR(one, **WARM_UP), StepLR(one, step_size=30, gamma=0.5, by_epoch=False)]
    states = [dict(s.state_dict()) for s in schedulers]
    rate = one.param_groups[0]["lr"]
    find_lr_decay(schedulers, 100, 1)
    assert [s.state_dict() for s in schedulers] == states
    assert one.param_groups[0]["lr"] == rate


def test_a_resumed_run_is_judged_from_its_first_step():
    one = optimizer()
    decay = MultiStepLR(one, milestones=[60], gamma=0.1, by_epoch=False)
    for _ in range(80):
        one.step()
        decay.step()
    message = find_lr_decay([decay], 100, 1)
    assert message == "MultiStepLR lowers the learning rate from 0.02 to 0.002 at iteration 60"
    assert one.param_groups[0]["lr"] == pytest.approx(0.002)
