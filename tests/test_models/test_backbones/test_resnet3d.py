import pytest
import torch
from mmdet.registry import MODELS
from torch import nn

import mmdet_lesion.models  # noqa: F401
from mmdet_lesion.structures import CUBE_SYMMETRIES


def build(**kwargs):
    torch.manual_seed(0)
    cfg = dict(type="ResNet3D", channels=(4, 6, 8, 8), stage_blocks=(1, 2, 1, 1))
    model = MODELS.build({**cfg, **kwargs})
    model.init_weights()
    return model


def test_twenty_blocks_by_default():
    model = MODELS.build(dict(type="ResNet3D"))
    assert sum(len(stage) for stage in model.stages) == 20
    convolutions = [m for m in model.modules() if isinstance(m, nn.Conv3d)]
    # The stem, two in each block, and three shortcuts where the width changes.
    assert len(convolutions) == 1 + 40 + 3


def test_strides_and_channels():
    maps = build()(torch.rand(2, 1, 32, 16, 48))
    assert [tuple(m.shape) for m in maps] == [
        (2, 4, 16, 8, 24),
        (2, 6, 8, 4, 12),
        (2, 8, 4, 2, 6),
        (2, 8, 2, 1, 3),
    ]


@pytest.mark.parametrize(
    ("norm_cfg", "kind"),
    [
        (dict(type="BN3d"), nn.BatchNorm3d),
        (dict(type="GN", num_groups=2), nn.GroupNorm),
        (dict(type="IN3d"), nn.InstanceNorm3d),
        (dict(type="SyncBN"), nn.SyncBatchNorm),
    ],
)
def test_norm_layers(norm_cfg, kind):
    norms = [m for m in build(norm_cfg=norm_cfg).modules() if isinstance(m, kind)]
    # One in the stem, two in each block, and one in each of the two shortcuts.
    assert len(norms) == 1 + 2 * 5 + 2


def test_checkpointing_does_not_change_maps_and_gradients():
    x = torch.rand(1, 1, 16, 16, 16)
    results = []
    for with_cp in (False, True):
        model = build(with_cp=with_cp, norm_cfg=dict(type="GN", num_groups=2))
        maps = model(x)
        sum(m.square().sum() for m in maps).backward()
        results.append(([*maps], [p.grad for p in model.parameters()]))
    for plain, checked in zip(*results):
        for a, b in zip(plain, checked):
            torch.testing.assert_close(a, b)


def test_symmetric_kernels_are_equivariant():
    """No map is shifted relative to the anchors."""
    model = build().double().eval()
    for conv in (m for m in model.modules() if isinstance(m, nn.Conv3d)):
        weight = sum(s.apply(conv.weight.data) for s in CUBE_SYMMETRIES) / 48
        conv.weight.data = weight
    x = torch.rand(1, 1, 16, 16, 16, dtype=torch.float64)
    with torch.no_grad():
        maps = model(x)
        for symmetry in CUBE_SYMMETRIES[1::5]:
            for a, b in zip(maps, model(symmetry.apply(x))):
                torch.testing.assert_close(symmetry.apply(a), b)


def test_channels_and_stage_blocks_of_different_length():
    with pytest.raises(ValueError, match="expected positive numbers and equal lengths"):
        build(channels=(4, 8))


def test_zero_init_residual_makes_blocks_the_identity():
    cfg = dict(channels=(4, 4), stage_blocks=(1, 3))
    model = build(**cfg).train()
    fine, coarse = model(torch.rand(2, 1, 8, 8, 8))
    torch.testing.assert_close(coarse, model.pool(fine))
    other = build(**cfg, zero_init_residual=False).train()
    fine, coarse = other(torch.rand(2, 1, 8, 8, 8))
    assert not torch.allclose(coarse, other.pool(fine), atol=0.1)
