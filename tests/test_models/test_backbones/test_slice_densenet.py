import pytest
import torch
from mmdet.registry import MODELS
from torch.nn.modules.batchnorm import _BatchNorm


def build(**kwargs):
    settings = dict(growth_rate=4, block_config=(2, 2, 1), num_init_features=8, bn_size=2)
    return MODELS.build(dict(type="SliceDenseNet", **{**settings, **kwargs}))


def test_parameter_count():
    model = MODELS.build(dict(type="SliceDenseNet", num_slices=3))
    block4 = sum(
        2 * c + 128 * c + 2 * 128 + 32 * 128 * 9 for c in (512 + 32 * i for i in range(16))
    )
    # 6,953,856 is densenet121 without its classifier.
    expected = 6_953_856 - block4 - 2 * 1024 - 1024 * 512
    assert sum(p.numel() for p in model.parameters()) == expected
    assert model.out_channels == [256, 512, 1024]
    fused = MODELS.build(dict(type="SliceDenseNet"))
    assert sum(p.numel() for p in fused.parameters()) == expected + 3 * 256 * 256


@pytest.mark.parametrize("fusion, images", [("grouped", 6), ("early", 2)])
def test_output_shapes(fusion, images):
    model = build(fusion=fusion)
    maps = model(torch.randn(2, 9, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (images, model.out_channels[0], 16, 24),
        (images, model.out_channels[1], 8, 12),
        (images, model.out_channels[2], 4, 6),
    ]


def test_fusion_only_changes_the_center_image_of_its_stack():
    model = build().eval()
    x = torch.randn(2, 9, 32, 32)
    before = model(x)
    torch.nn.init.normal_(model.fusion.conv.weight)
    after = model(x)
    changed = [(a != b).flatten(1).any(1).tolist() for a, b in zip(before, after)]
    assert changed == [[False] * 6, [False] * 6, [False, True, False] * 2]
    torch.testing.assert_close(model(x[1:])[2], after[2][3:])


def test_fused_map_depends_on_each_slice():
    model = build().eval()
    torch.nn.init.normal_(model.fusion.conv.weight)
    x = torch.randn(1, 9, 32, 32, requires_grad=True)
    model(x)[2][1].sum().backward()
    assert (x.grad.flatten(2).abs().sum(-1) > 0).all()


def test_init_weights_keeps_the_identity_of_the_fusion():
    model = build()
    model.init_weights()
    weight = model.fusion.conv.weight.flatten(1)
    channels = len(weight)
    assert torch.equal(weight[:, channels : 2 * channels], torch.eye(channels))
    assert weight.sum() == channels


@pytest.mark.parametrize("norm_eval", [False, True])
def test_checkpointing_does_not_change_results(norm_eval):
    plain = build(norm_eval=norm_eval)
    saving = build(norm_eval=norm_eval, with_cp=True)
    saving.load_state_dict(plain.state_dict())
    x = torch.randn(2, 9, 32, 32)
    for model in (plain, saving):
        model.train()
        sum(m.square().mean() for m in model(x)).backward()
    for (name, a), (_, b) in zip(plain.named_parameters(), saving.named_parameters()):
        assert torch.equal(a.grad, b.grad), name
    for name, value in plain.state_dict().items():
        assert torch.equal(value, saving.state_dict()[name]), name


def test_norm_eval_keeps_running_statistics():
    model = build(norm_eval=True).train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model(torch.randn(1, 9, 32, 32))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training and all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("frozen", [-1, 0, 1, 2, 3])
def test_frozen_stages(frozen):
    model = build(frozen_stages=frozen).train()
    stages = [("conv0", "norm0")] + [(f"denseblock{i}", f"transition{i}") for i in (1, 2, 3)]
    for index, names in enumerate(stages):
        modules = [m for name in names for m in getattr(model, name).modules()]
        norms = [m for m in modules if isinstance(m, _BatchNorm)]
        assert all(norm.training == (index > frozen) for norm in norms)
        parameters = [p for name in names for p in getattr(model, name).parameters()]
        assert all(p.requires_grad == (index > frozen) for p in parameters)
    assert model.fusion.conv.weight.requires_grad


def test_other_norm_layers():
    model = build(norm_cfg=dict(type="GN", num_groups=4))
    assert not any(isinstance(m, _BatchNorm) for m in model.modules())
    model(torch.randn(1, 9, 32, 32))


@pytest.mark.parametrize(
    "settings, found",
    [
        (dict(fusion="late"), "fusion='late'"),
        (dict(num_slices=8), "num_slices=8"),
        (dict(num_slices=6), "num_slices=6"),
        (dict(block_config=(1, 1)), "block_config=\\(1, 1\\)"),
        (dict(frozen_stages=4), "frozen_stages=4"),
    ],
)
def test_invalid_settings(settings, found):
    with pytest.raises(ValueError, match=found):
        build(**settings)


def test_invalid_input_shape():
    with pytest.raises(ValueError, match=r"\(1, 3, 32, 32\); expected \(N, 9, H, W\)"):
        build()(torch.zeros(1, 3, 32, 32))
