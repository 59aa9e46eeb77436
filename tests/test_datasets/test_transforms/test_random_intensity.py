import math

import pytest
import torch
from mmdet.registry import TRANSFORMS

from mmdet_lesion import InputError
from mmdet_lesion.datasets.transforms.random_intensity import gaussian_blur

NONE = dict(gain=0, shift=0, gamma=1, noise=0, blur=0, cut_out=0, prob=1.0)


def transform(x, seed=0, **kwargs):
    build = TRANSFORMS.build(dict(type="RandomIntensity", **kwargs))
    return build(dict(inputs=x, generator=torch.Generator().manual_seed(seed)))["inputs"]


@pytest.fixture
def x():
    return torch.rand(4, 1, 8, 10, 12, dtype=torch.float64)


def test_nothing(x):
    torch.testing.assert_close(transform(x, **NONE), x)
    torch.testing.assert_close(transform(x, prob=0.0), x)


def test_gain(x):
    y = transform(x, **{**NONE, "gain": 0.25})
    ratios = y.std(dim=(1, 2, 3, 4)) / x.std(dim=(1, 2, 3, 4))
    assert ((ratios >= 0.75) & (ratios <= 1.25)).all()
    assert ratios.unique().numel() == 4
    torch.testing.assert_close(y.mean(dim=(1, 2, 3, 4)), x.mean(dim=(1, 2, 3, 4)))


def test_shift(x):
    difference = (transform(x, **{**NONE, "shift": 0.1}) - x).flatten(1)
    assert difference.abs().max() <= 0.1
    torch.testing.assert_close(difference.amin(1), difference.amax(1))
    assert difference[:, 0].min() < difference[:, 0].max()


def test_gamma(x):
    y = transform(x, **{**NONE, "gamma": 1.5})
    exponents = (y.log() / x.log()).flatten(1)
    torch.testing.assert_close(exponents.amin(1), exponents.amax(1))
    assert ((exponents >= 1 / 1.5) & (exponents <= 1.5)).all()


def test_gamma_of_negative_intensities():
    y = transform(torch.full((4, 1, 2, 2, 2), -0.5), **{**NONE, "gamma": 1.5})
    assert (y == -0.5).all()


def test_noise(x):
    noise = (transform(x, **{**NONE, "noise": 0.05}) - x).flatten(1)
    deviations = noise.std(dim=1)
    assert ((deviations > 0) & (deviations < 0.055)).all()
    assert noise.mean().abs() < 0.005


def test_blur_of_an_impulse():
    x = torch.zeros(3, 1, 15, 15, 15, dtype=torch.float64)
    x[..., 7, 7, 7] = 1
    y = gaussian_blur(x, torch.tensor([0.0, 1.0, 1.5], dtype=torch.float64), 6)
    torch.testing.assert_close(y[0], x[0])
    torch.testing.assert_close(y.sum(dim=(1, 2, 3, 4)), torch.ones(3).double())
    for volume, sigma in ((y[1], 1.0), (y[2], 1.5)):
        for neighbor in (volume[0, 7, 7, 8], volume[0, 7, 8, 7], volume[0, 8, 7, 7]):
            ratio = neighbor / volume[0, 7, 7, 7]
            assert ratio.item() == pytest.approx(math.exp(-0.5 / sigma**2))


def test_blur_keeps_a_constant_volume():
    x = torch.full((2, 1, 4, 5, 6), 0.7)
    torch.testing.assert_close(gaussian_blur(x, torch.tensor([0.5, 1.0]), 3), x)


def test_cut_out_is_one_cuboid_of_the_mean():
    x = torch.rand(4, 1, 20, 30, 40, dtype=torch.float64)
    y = transform(x, seed=2, **{**NONE, "cut_out": 0.5})
    for before, after in zip(x, y):
        changed = ((before - after).abs() > 1e-9)[0]
        places = changed.nonzero()
        assert len(places)
        edges = places.amax(0) - places.amin(0) + 1
        assert edges.prod() == len(places)
        assert (edges <= torch.tensor([11, 16, 21])).all()
        torch.testing.assert_close(after[0][changed], before.mean().expand(len(places)))


def test_probability():
    x = torch.rand(200, 1, 2, 2, 2)
    y = transform(x, **{**NONE, "shift": 0.1, "prob": 0.3})
    changed = (x != y).flatten(1).any(1).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.1)


def test_result_follows_the_generator_and_the_input_is_not_modified(x):
    before, state = x.clone(), torch.random.get_rng_state()
    first, second, third = (transform(x, seed, prob=1.0) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)
    assert torch.equal(x, before)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(0)
    build = TRANSFORMS.build(dict(type="RandomIntensity"))
    assert build(dict(inputs=x))["inputs"].dtype == x.dtype
    assert not torch.equal(torch.random.get_rng_state(), state)


def test_result_is_the_same_on_every_device(device):
    x = torch.rand(2, 1, 8, 8, 8)
    there = transform(x.to(device), prob=1.0)
    assert there.device.type == device
    torch.testing.assert_close(there.cpu(), transform(x, prob=1.0))


@pytest.mark.parametrize(
    "setting",
    [dict(prob=2), dict(gain=1), dict(gamma=0.5), dict(shift=-1), dict(blur=-1), dict(cut_out=2)],
)
def test_invalid_settings(setting):
    ((name, value),) = setting.items()
    with pytest.raises(InputError, match=f"{name}={value}"):
        TRANSFORMS.build(dict(type="RandomIntensity", **setting))
