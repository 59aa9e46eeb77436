import torch

from mmdet_lesion.models.layers import DepthReduction


def test_initialized_as_the_identity_of_the_middle_slice():
    layer = DepthReduction(4, 5)
    torch.nn.init.normal_(layer.conv.weight)
    layer.init_weights()
    x = torch.randn(2, 4, 5, 3, 6)
    assert torch.equal(layer(x.flatten(2, 3)), x[:, :, 2])


def test_equals_a_convolution_over_depth():
    layer = DepthReduction(3, 5)
    torch.nn.init.normal_(layer.conv.weight)
    x = torch.randn(2, 3, 5, 4, 4)
    kernel = layer.conv.weight.view(3, 3, 5)
    expected = torch.einsum("oid,nidhw->nohw", kernel, x)
    torch.testing.assert_close(layer(x.flatten(2, 3)), expected, rtol=1e-4, atol=1e-5)
