import copy

import pytest
import torch
import torch.nn.functional as F

from mmdet_lesion.models import A3DConv


def tall(x):
    """Stack slices (N, D, C, H, W) below each other."""
    return x.transpose(1, 2).flatten(2, 3)


def slices(x, depth):
    return x.unflatten(2, (depth, -1)).transpose(1, 2)


@pytest.mark.parametrize("kernel, padding", [(1, 0), (3, 1), (3, 0)])
def test_identity_mixing_equals_the_2d_convolution(kernel, padding):
    conv = A3DConv(4, 5, kernel, num_slices=3, padding=padding, noise=0.0)
    x = torch.randn(2, 3, 4, 6, 7)
    expected = F.conv2d(x.flatten(0, 1), conv.weight, conv.bias, padding=padding)
    result = slices(conv(tall(x)), 3)
    torch.testing.assert_close(result, expected.unflatten(0, (2, 3)))


def test_mixing_equals_the_formula():
    conv = A3DConv(2, 2, 1, num_slices=3, bias=False)
    torch.nn.init.eye_(conv.weight.data[:, :, 0, 0])
    torch.nn.init.normal_(conv.mixing)
    x = torch.randn(2, 3, 2, 4, 4)
    result = slices(conv(tall(x)), 3)
    for k in range(3):
        for c in range(2):
            expected = sum(conv.mixing[d, k, c] * x[:, d, c] for d in range(3))
            torch.testing.assert_close(result[:, k, c], expected)


def test_initialized_near_the_identity():
    torch.manual_seed(0)
    mixing = A3DConv(50, 1, 1, num_slices=7).mixing
    assert mixing.shape == (7, 7, 50)
    noise = mixing.detach() - torch.eye(7).unsqueeze(-1)
    assert -0.1 <= noise.min() < -0.09 and 0.09 < noise.max() <= 0.1
    assert abs(noise.mean()) < 0.01


def test_gradients():
    conv = A3DConv(3, 2, 3, num_slices=3, padding=1).double()
    x = torch.randn(2, 3, 3 * 3, 2, dtype=torch.float64, requires_grad=True)

    def run(x, weight, mixing):
        parameters = dict(weight=weight, mixing=mixing, bias=conv.bias)
        return torch.func.functional_call(conv, parameters, (x,))

    weight = conv.weight.detach().requires_grad_()
    mixing = conv.mixing.detach().requires_grad_()
    assert torch.autograd.gradcheck(run, (x, weight, mixing))


@pytest.mark.parametrize("kernel, padding", [(1, 0), (3, 1)])
def test_output_and_gradients_are_the_same_on_every_device(device, kernel, padding):
    torch.manual_seed(0)
    conv = A3DConv(6, 5, kernel, num_slices=7, padding=padding)
    x = torch.randn(2, 6, 7 * 9, 10)
    results = []
    for where in ("cpu", device):
        # The order of summation in matrix products differs between devices.
        layer = copy.deepcopy(conv).to(where)
        output = layer(x.to(where))
        output.square().sum().backward()
        results.append([output.detach(), *(p.grad for p in layer.parameters())])
    for found, expected in zip(results[1], results[0]):
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-4, atol=1e-3)
