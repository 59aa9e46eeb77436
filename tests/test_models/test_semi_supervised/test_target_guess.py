import math

import pytest
import torch
from torch import nn

from mmdet_lesion.models.semi_supervised import (
    binary_entropy,
    draw_symmetries,
    prediction_mode,
    sharpen,
)
from mmdet_lesion.structures import CUBE_SYMMETRIES


def test_sharpen_equals_the_formula():
    p = torch.linspace(0.01, 0.99, 25, dtype=torch.float64)
    for temperature in (0.3, 0.7, 1.0, 2.0):
        yes, no = p ** (1 / temperature), (1 - p) ** (1 / temperature)
        torch.testing.assert_close(sharpen(p, temperature), yes / (yes + no))


def test_sharpen_at_0_and_1_and_one_half():
    p = torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(sharpen(p, 0.7), p)
    # (9 / 1) ** (1 / 0.5) = 81.
    assert sharpen(torch.tensor([0.9]), 0.5).item() == pytest.approx(81 / 82)


def test_binary_entropy():
    p = torch.tensor([0.0, 0.5, 1.0, 0.25])
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    torch.testing.assert_close(binary_entropy(p), torch.tensor([0.0, math.log(2), 0.0, quarter]))


def test_drawn_symmetries_are_distinct_and_follow_the_seed():
    torch.manual_seed(3)
    first = draw_symmetries(4)
    torch.manual_seed(3)
    assert draw_symmetries(4) == first
    assert len(set(first)) == 4
    assert set(draw_symmetries(48)) == set(CUBE_SYMMETRIES)


def test_prediction_mode_restores_the_mode_of_each_module():
    for batch_statistics in (False, True):
        model = nn.Sequential(nn.BatchNorm3d(2), nn.BatchNorm3d(2), nn.Dropout())
        model.train()
        model[1].eval()
        with pytest.raises(RuntimeError), prediction_mode(model, batch_statistics):
            # Norms in training mode use batch statistics; other modules are in evaluation mode.
            assert model[0].training == batch_statistics
            assert not model[1].training
            assert not model[2].training
            raise RuntimeError
        assert [part.training for part in model] == [True, False, True]
        assert all(norm.track_running_stats for norm in model[:2])
