import torch

from mmdet_lesion.models.layers import SliceFusion


def test_initialized_as_the_identity_of_the_center_image():
    x = torch.randn(6, 4, 5, 7)
    fusion = SliceFusion(channels=4, num_groups=3)
    torch.testing.assert_close(fusion(x), x[[1, 4]])


def test_init_weights_keeps_the_identity():
    fusion = SliceFusion(channels=2, num_groups=3)
    torch.nn.init.normal_(fusion.conv.weight)
    fusion.init_weights()
    expected = torch.tensor([[0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 0, 0]]).float()
    assert torch.equal(fusion.conv.weight.flatten(1), expected)


def test_weights_of_neighbors_have_gradients():
    fusion = SliceFusion(channels=2, num_groups=3)
    fusion(torch.randn(3, 2, 4, 4)).square().sum().backward()
    assert (fusion.conv.weight.grad != 0).all()


def test_fuses_images_of_one_stack_only():
    fusion = SliceFusion(channels=3, num_groups=3)
    torch.nn.init.normal_(fusion.conv.weight)
    x = torch.randn(6, 3, 4, 4)
    torch.testing.assert_close(fusion(x)[1:], fusion(x[3:]))
    manual = torch.einsum("oi,ihw->ohw", fusion.conv.weight.flatten(1), x[:3].flatten(0, 1))
    torch.testing.assert_close(fusion(x)[0], manual)
