import pytest
import torch
from mmdet.registry import TRANSFORMS

from mmdet_lesion import InputError
from mmdet_lesion.datasets.transforms import object_level_mixup


def mix(inputs, objects, ratio=None, monkeypatch=None):
    if monkeypatch:
        monkeypatch.setattr(
            object_level_mixup, "draw_ratios", lambda num, _: torch.full((num,), ratio)
        )
    objects = [torch.tensor(rows, dtype=torch.float32).reshape(-1, 6) for rows in objects]
    transform = TRANSFORMS.build(dict(type="ObjectLevelMixUp"))
    return transform(dict(inputs=inputs, objects=objects))["inputs"]


def test_only_voxels_of_the_box_change(monkeypatch):
    torch.manual_seed(0)
    x = torch.rand(3, 1, 8, 9, 10)
    before = x.clone()
    # Patch 1 has no object; the box of patch 2 begins before the patch and ends within a voxel.
    y = mix(x, [[[1, 2, 3, 4, 6, 5]], [], [[-2, 3, 1, 2.5, 5, 4]]], 0.6, monkeypatch)
    assert torch.equal(x, before)
    changed = (y != x).nonzero().tolist()
    expected = [[0, 0, z, y_, x_] for z in (3, 4) for y_ in range(2, 6) for x_ in range(1, 4)]
    expected += [[2, 0, z, y_, x_] for z in range(1, 4) for y_ in (3, 4) for x_ in range(3)]
    assert changed == expected


def test_objects_of_equal_size_are_blended(monkeypatch):
    x = torch.rand(2, 1, 4, 4, 4)
    y = mix(x, [[[0, 0, 0, 2, 2, 2]], [[1, 1, 1, 3, 3, 3]]], 0.75, monkeypatch)
    first, second = x[0, 0, :2, :2, :2], x[1, 0, 1:3, 1:3, 1:3]
    torch.testing.assert_close(y[0, 0, :2, :2, :2], 0.75 * first + 0.25 * second)
    # The second object is mixed with the first one before it was mixed.
    torch.testing.assert_close(y[1, 0, 1:3, 1:3, 1:3], 0.75 * second + 0.25 * first)


def test_other_object_is_resized(monkeypatch):
    x = torch.zeros(2, 1, 4, 4, 8)
    x[1, 0] = torch.arange(8.0)  # a ramp in x
    y = mix(x, [[[0, 0, 0, 4, 2, 2]], [[0, 0, 0, 8, 4, 4]]], 0.5, monkeypatch)
    # Eight columns of the ramp become four, the means of neighbors.
    torch.testing.assert_close(y[0, 0, 0, 0], torch.tensor([0.25, 1.25, 2.25, 3.25, 0, 0, 0, 0]))


def test_objects_of_the_same_patch_are_mixed(monkeypatch):
    x = torch.rand(1, 1, 4, 4, 8)
    y = mix(x, [[[0, 0, 0, 2, 2, 2], [4, 0, 0, 6, 2, 2]]], 0.5, monkeypatch)
    mean = (x[..., :2, :2, 0:2] + x[..., :2, :2, 4:6]) / 2
    torch.testing.assert_close(y[..., :2, :2, 0:2], mean)
    torch.testing.assert_close(y[..., :2, :2, 4:6], mean)


def test_single_object_is_unchanged():
    x = torch.rand(2, 1, 4, 4, 4)
    # The other box is outside of its patch.
    assert torch.equal(mix(x, [[[0, 0, 0, 2, 2, 2]], [[9, 9, 9, 12, 12, 12]]]), x)
    assert torch.equal(mix(x, [[], []]), x)


def test_half_precision():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 4, 4, 4).half()
    y = mix(x, [[[0, 0, 0, 2, 2, 2]], [[0, 0, 0, 3, 3, 3]]])
    assert y.dtype == torch.float16
    assert not torch.equal(x, y)


def test_eta_must_be_positive():
    with pytest.raises(InputError, match="eta=-1"):
        TRANSFORMS.build(dict(type="ObjectLevelMixUp", eta=-1))


def test_result_is_the_same_on_every_device(device):
    x = torch.rand(2, 1, 8, 8, 8)
    objects = [torch.tensor([[0.0, 0, 0, 3, 4, 5]]), torch.tensor([[1.0, 2, 0, 6, 5, 4]])]
    results = []
    for where in ("cpu", device):
        torch.manual_seed(0)
        there = dict(inputs=x.to(where), objects=[boxes.to(where) for boxes in objects])
        results.append(TRANSFORMS.build(dict(type="ObjectLevelMixUp", eta=5.0))(there)["inputs"])
    assert results[1].device.type == device
    assert not torch.equal(results[0], x)
    torch.testing.assert_close(results[1].cpu(), results[0], rtol=1e-5, atol=1e-5)
