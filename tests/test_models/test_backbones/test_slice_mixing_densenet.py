import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torchvision_densenet import forward, make_state_dict

from mmdet_lesion.errors import InputError
from mmdet_lesion.models import A3DConv, AlignShiftConv

NARROW = dict(growth_rate=4, block_config=(2, 1, 2), num_init_features=8, bn_size=2)
LAYOUT = dict(growth=4, blocks=(2, 1, 2, 1), stem=8, bottleneck=2, classes=3)
INF = float("inf")


def build(**kwargs):
    return MODELS.build(dict(type="SliceMixingDenseNet", **{**NARROW, **kwargs}))


def without_mixing(model):
    """Set the mixing to the identity."""
    for module in model.modules():
        if isinstance(module, A3DConv):
            module.mixing.data = (
                torch.eye(model.num_slices).unsqueeze(-1).repeat(1, 1, module.in_channels)
            )
    return model


@pytest.mark.parametrize("conv, own", [("a3d", 49), ("align_shift", 0)])
def test_parameter_count(conv, own):
    flat = MODELS.build(dict(type="SliceDenseNet", num_slices=3))
    model = MODELS.build(dict(type="SliceMixingDenseNet", conv=conv))
    widths = [64 + 32 * i for i in range(6)]
    widths += [128 + 32 * i for i in range(12)] + [256 + 32 * i for i in range(24)]
    mixing = own * sum(width + 128 for width in widths)
    reductions = 7 * (256**2 + 512**2 + 1024**2)
    stem = 2 * 64 * 49
    expected = sum(p.numel() for p in flat.parameters()) - stem + mixing + reductions
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.out_channels == [256, 512, 1024]


@pytest.mark.parametrize("conv", ["a3d", "align_shift"])
@pytest.mark.parametrize("num_slices", [3, 7])
def test_output_shapes(conv, num_slices):
    model = build(conv=conv, num_slices=num_slices)
    maps = model(torch.randn(2, num_slices, 32, 64), torch.tensor([1.0, 5.0]))
    channels = model.out_channels
    assert [tuple(m.shape) for m in maps] == [
        (2, channels[0], 8, 16),
        (2, channels[1], 4, 8),
        (2, channels[2], 2, 4),
    ]


def test_only_dense_layers_mix_slices():
    for conv, kind in (("a3d", A3DConv), ("align_shift", AlignShiftConv)):
        mixed = {n for n, m in build(conv=conv).named_modules() if isinstance(m, kind)}
        layers = [(1, 1), (1, 2), (2, 1), (3, 1), (3, 2)]
        assert mixed == {f"denseblock{b}.denselayer{i}.conv{k}" for b, i in layers for k in (1, 2)}


@pytest.mark.parametrize("size", [(32, 32), (40, 56)])
def test_without_mixing_equals_the_2d_network_on_the_middle_slice(size):
    flat = MODELS.build(dict(type="SliceDenseNet", num_slices=1, fusion="early", **NARROW)).eval()
    model = without_mixing(build()).eval()
    model.load_state_dict(flat.state_dict(), strict=False)
    x = torch.randn(2, 7, *size)
    expected = flat(x[:, 3:4])
    torch.testing.assert_close(list(model(x)), list(expected), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("conv", ["a3d", "align_shift"])
def test_coarsest_map_depends_on_each_slice(conv):
    model = build(conv=conv, num_slices=3, block_config=(2, 2, 2)).eval()
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    model(x, torch.tensor([1.0]))[2].sum().backward()
    assert (x.grad.flatten(2).abs().sum(-1) > 0).all()


def test_slice_stacks_of_a_batch_are_independent():
    model = build(conv="align_shift").eval()
    x = torch.randn(2, 7, 32, 32)
    together = model(x, torch.tensor([1.0, 5.0]))
    alone = model(x[1:], torch.tensor([5.0]))
    thin = model(x[1:], torch.tensor([1.0]))
    for a, b, c in zip(together, alone, thin):
        torch.testing.assert_close(a[1:], b)
        assert not torch.allclose(b, c)


@pytest.mark.parametrize("conv", ["a3d", "align_shift"])
def test_pretrained_weights_with_the_middle_channel_of_the_stem(conv, tmp_path):
    weights = make_state_dict(**LAYOUT)
    torch.save(weights, tmp_path / "densenet121.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "densenet121.pth"))
    model = build(conv=conv, init_cfg=init_cfg)
    model.init_weights()
    model = without_mixing(model).eval()
    weights["features.conv0.weight"] = weights["features.conv0.weight"][:, 1:2]
    x = torch.randn(1, 7, 32, 32)
    result = model(x, torch.tensor([INF]))
    expected = forward(weights, x[:, 3:4])
    torch.testing.assert_close(list(result), expected, rtol=1e-4, atol=1e-4)


def test_unexpected_key_is_an_error_and_missing_mixing_is_not(tmp_path):
    weights = make_state_dict(**LAYOUT)
    weights["features.denseblock1.denselayer1.conv1.bias"] = torch.zeros(1)
    torch.save(weights, tmp_path / "densenet121.pth")
    init_cfg = dict(type="Pretrained", checkpoint=str(tmp_path / "densenet121.pth"))
    with pytest.raises(InputError, match="unexpected denseblock1.denselayer1.conv1.bias$"):
        build(init_cfg=init_cfg).init_weights()


@pytest.mark.parametrize("conv", ["a3d", "align_shift"])
def test_checkpointing_does_not_change_results(conv):
    plain, saving = build(conv=conv), build(conv=conv, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x, thickness = torch.randn(2, 7, 32, 32), torch.tensor([1.0, 5.0])
    for model in (plain, saving):
        model.train()
        sum(m.square().mean() for m in model(x, thickness)).backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters()):
        assert torch.equal(a.grad, b.grad), name
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name


def test_init_weights_keeps_mixing_and_reduction():
    model = build()
    mixing = model.denseblock1.denselayer1.conv1.mixing.clone()
    model.init_weights()
    assert torch.equal(model.denseblock1.denselayer1.conv1.mixing, mixing)
    x = torch.randn(1, 16, 7, 2, 2)
    assert torch.equal(model.reduction1(x.flatten(2, 3)), x[:, :, 3])
    # He initialization is also applied to subclasses of Conv2d.
    wide = build(growth_rate=64, bn_size=4)
    wide.init_weights()
    std = wide.denseblock1.denselayer1.conv1.weight.std().item()
    assert std == pytest.approx((2 / 256) ** 0.5, rel=0.1)


def test_pooling_separates_slices_of_odd_height():
    model = without_mixing(build(num_slices=3)).eval()
    x = torch.randn(1, 3, 3 * 5, 6)[:, :1].expand(1, 16, -1, -1).contiguous()
    pooled = model._halve(x, model.transition1).unflatten(2, (3, -1))
    for d in range(3):
        plane = F.avg_pool2d(x.unflatten(2, (3, 5))[:, :, d], 2)
        torch.testing.assert_close(pooled[:, :, d], model.transition1.conv(plane))


@pytest.mark.parametrize(
    "settings, found", [(dict(conv="tsm"), "conv='tsm'"), (dict(num_slices=4), "num_slices=4")]
)
def test_invalid_settings(settings, found):
    with pytest.raises(InputError, match=f"SliceMixingDenseNet: {found}"):
        build(**settings)


def test_invalid_input_shape():
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\); expected \(N, 7, H, W\)"):
        build()(torch.zeros(1, 3, 32, 32))
