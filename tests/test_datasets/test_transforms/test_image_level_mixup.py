import pytest
import torch
from mmdet.registry import TRANSFORMS

from mmdet_lesion import InputError
from mmdet_lesion.datasets.transforms import image_level_mixup
from mmdet_lesion.datasets.transforms.image_level_mixup import draw_ratios


def batch():
    return dict(
        inputs=torch.rand(3, 1, 4, 4, 4),
        targets=torch.tensor([[1.0, 0, 0], [0, 0.5, 0], [0, 0, 0.2]]),
        used=torch.tensor([[True, True, False], [True, True, True], [False, True, True]]),
        objects=[torch.rand(1, 6)] * 3,
    )


def test_inputs_targets_and_used(monkeypatch):
    ratios, partners = torch.tensor([1.0, 0.75, 0.5]), torch.tensor([1, 2, 0])
    monkeypatch.setattr(image_level_mixup, "draw_ratios", lambda *_: ratios)
    monkeypatch.setattr(torch, "randperm", lambda _: partners)
    before = batch()
    x = before["inputs"].clone()
    after = TRANSFORMS.build(dict(type="ImageLevelMixUp"))(dict(before))
    torch.testing.assert_close(after["inputs"][0], x[0])
    torch.testing.assert_close(after["inputs"][1], 0.75 * x[1] + 0.25 * x[2])
    torch.testing.assert_close(after["inputs"][2], 0.5 * x[2] + 0.5 * x[0])
    expected = torch.tensor([[1.0, 0, 0], [0, 0.375, 0.05], [0.5, 0, 0.1]])
    torch.testing.assert_close(after["targets"], expected)
    assert after["used"].tolist() == [
        [True, True, False],
        [False, True, True],
        [False, True, False],
    ]
    assert all(torch.equal(a, b) for a, b in zip(after["objects"], before["objects"]))
    assert torch.equal(after["partners"], partners)
    assert torch.equal(after["ratios"], ratios)
    # The input batch is not modified.
    assert torch.equal(before["inputs"], x)


def test_distribution_of_ratios():
    torch.manual_seed(0)
    ratios = draw_ratios(20000, 0.2)
    assert ratios.min() >= 0.5
    assert ratios.max() <= 1
    # max(r, 1 - r) of Beta(0.2, 0.2): mean 0.8988 and P(ratio > 0.9) = 0.6734, by integration.
    assert ratios.mean().item() == pytest.approx(0.8988, abs=0.005)
    assert (ratios > 0.9).float().mean().item() == pytest.approx(0.6734, abs=0.012)


def test_every_patch_has_one_partner():
    torch.manual_seed(0)
    data = dict(
        inputs=torch.arange(5.0).view(5, 1, 1, 1, 1).expand(5, 1, 2, 2, 2),
        targets=torch.arange(5.0)[:, None],
        used=torch.ones(5, 1, dtype=torch.bool),
    )
    after = TRANSFORMS.build(dict(type="ImageLevelMixUp", eta=5.0))(data)
    # Patches and targets had equal values, so they must be mixed equally.
    torch.testing.assert_close(after["inputs"][:, 0, 0, 0, 0], after["targets"][:, 0])
    assert not torch.equal(after["targets"][:, 0], torch.arange(5.0))


def test_eta_must_be_positive():
    with pytest.raises(InputError, match="eta=0"):
        TRANSFORMS.build(dict(type="ImageLevelMixUp", eta=0))


def test_result_is_the_same_on_every_device(device):
    data, results = batch(), []
    for where in ("cpu", device):
        torch.manual_seed(0)
        there = {key: data[key].to(where) for key in ("inputs", "targets", "used")}
        after = TRANSFORMS.build(dict(type="ImageLevelMixUp", eta=5.0))(there)
        assert {value.device.type for value in after.values()} == {where}
        results.append({key: value.cpu() for key, value in after.items()})
    for key, expected in results[0].items():
        torch.testing.assert_close(results[1][key], expected)
