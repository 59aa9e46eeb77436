import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

from mmdet_lesion.models.necks import TopDownPathway

IN_CHANNELS = [6, 8, 10]


def plain(neck: TopDownPathway, inputs):
    """Compute laterals, upsampling and fusion without fused weights."""
    x = None
    for lateral, level in zip(list(neck.laterals)[::-1], inputs[::-1]):
        y = lateral(level)
        x = y if x is None else y + F.interpolate(x, size=y.shape[-2:], mode="nearest")
    return neck.fusion(x) if neck.num_groups > 1 else x


def maps(num_images, sizes=((16, 20), (8, 10), (4, 5)), dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(num_images, c, *size, generator=generator, dtype=dtype)
        for c, size in zip(IN_CHANNELS, sizes)
    ]


@pytest.mark.parametrize("num_groups", [1, 3])
def test_fused_weights_do_not_change_value_and_gradient(num_groups):
    neck = TopDownPathway(IN_CHANNELS, out_channels=5, num_groups=num_groups).double()
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)
    inputs = maps(2 * num_groups)
    (out,) = neck(inputs)
    expected = plain(neck, inputs)
    assert out.shape == (2, 5, 16, 20)
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    gradients = torch.autograd.grad((out * weights).sum(), list(neck.parameters()))
    wanted = torch.autograd.grad((expected * weights).sum(), list(neck.parameters()))
    torch.testing.assert_close(gradients, wanted)


@pytest.mark.parametrize("grad", [True, False])
def test_odd_sizes(grad):
    neck = TopDownPathway(IN_CHANNELS, out_channels=4, num_groups=1).double()
    inputs = maps(1, sizes=((13, 11), (6, 5), (3, 2)))
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(neck(inputs)[0], plain(neck, inputs))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_inference_on_separate_maps(memory_format):
    neck = TopDownPathway(IN_CHANNELS, out_channels=5, num_groups=3).double()
    for parameter in neck.parameters():
        torch.nn.init.normal_(parameter)
    inputs = maps(6)
    (expected,) = neck(inputs)
    levels = [
        [level[k::3].contiguous(memory_format=memory_format) for k in range(3)] for level in inputs
    ]
    with torch.no_grad():
        merged = neck.merge(levels, neck.fused_laterals())
    torch.testing.assert_close(merged, expected.detach())


def test_inference_in_mixed_precision():
    neck = TopDownPathway(IN_CHANNELS, out_channels=4, num_groups=1)
    inputs = [level.bfloat16() for level in maps(1)]
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        (out,) = neck(inputs)
    torch.testing.assert_close(
        out.double(), plain(neck.double(), [x.double() for x in inputs]), rtol=0.05, atol=0.05
    )


def test_initialized_neck_returns_the_map_of_the_center_image():
    neck = TopDownPathway(IN_CHANNELS, out_channels=4, num_groups=3)
    neck.init_weights()
    alone = TopDownPathway(IN_CHANNELS, out_channels=4, num_groups=1)
    alone.laterals.load_state_dict(neck.laterals.state_dict())
    inputs = maps(6, dtype=torch.float32)
    centers = [level[[1, 4]] for level in inputs]
    torch.testing.assert_close(neck(inputs), alone(centers))


def test_build_from_config():
    neck = MODELS.build(dict(type="TopDownPathway", in_channels=IN_CHANNELS))
    assert neck.out_channels == 512 and neck.num_groups == 3


def test_invalid_settings_and_inputs():
    with pytest.raises(ValueError, match="num_groups=2"):
        TopDownPathway(IN_CHANNELS, num_groups=2)
    neck = TopDownPathway(IN_CHANNELS, out_channels=4, num_groups=3)
    with pytest.raises(ValueError, match="3 feature maps of 4 images; expected 3 .* multiple of 3"):
        neck(maps(4))
