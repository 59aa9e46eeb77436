import copy
import math

import pytest
import torch
import torch.nn.functional as F

from mmdet_lesion.models import AlignShiftConv

INF = math.inf


def build(channels=8, kernel=1, depth=4, **kwargs):
    return AlignShiftConv(channels, channels, kernel, num_slices=depth, bias=False, **kwargs)


def shifted(x, thickness, conv=None):
    """Shift slices (N, C, D, H, W) by a layer whose convolution is the identity."""
    conv = conv or build(x.shape[1], depth=x.shape[2])
    torch.nn.init.eye_(conv.weight.data[:, :, 0, 0])
    result = conv(x.flatten(2, 3), torch.tensor(thickness))
    return result.unflatten(2, (x.shape[2], -1))


@pytest.mark.parametrize("thickness", [0.5, 2.0])
def test_thin_slices_are_shifted_by_one_slice(thickness):
    x = torch.randn(1, 8, 4, 2, 3)
    result = shifted(x, [thickness])
    expected = x.clone()
    expected[:, 0, :3] = x[:, 0, 1:]
    expected[:, 1, 1:] = x[:, 1, :3]
    assert torch.equal(result, expected)


def test_infinitely_thick_slices_are_not_shifted():
    x = torch.randn(1, 8, 4, 2, 3)
    assert torch.equal(shifted(x, [INF]), x)


def test_thick_slices_are_interpolated_with_their_neighbors():
    # 5 mm: alpha = 1 - 2 / 5. Channels 0 and 1 are one fold each.
    depth = torch.tensor([0.0, 10.0, 40.0]).view(1, 1, 3, 1, 1)
    result = shifted(depth.expand(1, 8, 3, 1, 1).contiguous(), [5.0])[0, :, :, 0, 0]
    torch.testing.assert_close(result[0], torch.tensor([4.0, 22.0, 40.0]))
    torch.testing.assert_close(result[1], torch.tensor([0.0, 6.0, 28.0]))
    torch.testing.assert_close(result[2:], depth.flatten().expand(6, 3))


def test_each_slice_stack_has_its_own_thickness():
    x = torch.randn(3, 16, 5, 2, 2)
    together = shifted(x, [1.0, 5.0, INF])
    for index, thickness in enumerate((1.0, 5.0, INF)):
        alone = shifted(x[index : index + 1], [thickness])
        torch.testing.assert_close(together[index : index + 1], alone)


def test_convolution_does_not_mix_slices():
    conv = build(8, kernel=3, depth=3, padding=1)
    x = torch.randn(2, 8, 3, 5, 4)
    result = conv(x.flatten(2, 3), torch.tensor([INF, INF])).unflatten(2, (3, 5))
    for d in range(3):
        expected = F.conv2d(x[:, :, d], conv.weight, padding=1)
        torch.testing.assert_close(result[:, :, d], expected)


@pytest.mark.parametrize("thickness", [1.0, 5.0, INF])
def test_gradients(thickness):
    conv = build(8, kernel=3, depth=3, padding=1).double()
    x = torch.randn(1, 8, 3 * 2, 2, dtype=torch.float64, requires_grad=True)
    thickness = torch.tensor([thickness], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: conv(x, thickness), (x,))


def test_missing_thickness():
    with pytest.raises(ValueError, match="shape None for 2 slice stacks"):
        build()(torch.zeros(2, 8, 8, 2))
    with pytest.raises(ValueError, match=r"shape \(1,\) for 2 slice stacks"):
        build()(torch.zeros(2, 8, 8, 2), torch.ones(1))


def test_output_and_gradients_are_the_same_on_every_device(device):
    torch.manual_seed(0)
    conv = build(16, kernel=3, depth=7, padding=1)
    x, thickness = torch.randn(3, 16, 7 * 9, 10), torch.tensor([1.0, 5.0, INF])
    results = []
    for where in ("cpu", device):
        layer = copy.deepcopy(conv).to(where)
        output = layer(x.to(where), thickness.to(where))
        output.square().sum().backward()
        results.append((output.detach(), layer.weight.grad))
    for found, expected in zip(results[1], results[0]):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-3)
