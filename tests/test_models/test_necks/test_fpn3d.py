import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS

import mmdet_lesion.models  # noqa: F401


def build(channels=(3, 5, 7)):
    torch.manual_seed(0)
    model = MODELS.build(dict(type="FPN3D", in_channels=list(channels), out_channels=4))
    model.init_weights()
    return model


def maps(channels=(3, 5, 7)):
    torch.manual_seed(1)
    return [torch.rand(2, c, 8 // 2**i, 4 // 2**i, 12 // 2**i) for i, c in enumerate(channels)]


def test_levels_are_top_down_sums():
    model, inputs = build(), maps()
    levels = model(inputs)
    assert [tuple(x.shape) for x in levels] == [(2, 4, *x.shape[2:]) for x in inputs]
    coarse = model.laterals[2](inputs[2])
    middle = model.laterals[1](inputs[1]) + F.interpolate(coarse, scale_factor=2)
    torch.testing.assert_close(levels[2], model.outputs[2](coarse))
    torch.testing.assert_close(levels[1], model.outputs[1](middle))
    fine = model.laterals[0](inputs[0]) + F.interpolate(middle, scale_factor=2)
    torch.testing.assert_close(levels[0], model.outputs[0](fine))


def test_wrong_number_of_maps():
    with pytest.raises(ValueError, match="2 feature maps; expected 3"):
        build()(maps()[:2])
