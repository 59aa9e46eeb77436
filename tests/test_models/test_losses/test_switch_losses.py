"""Tests of the losses of SOS."""

import pytest
import torch

from mmdet_lesion.models.losses import executive_loss, paradoxical_loss


def leaf(values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def test_paradoxical_loss_by_hand():
    coarse, fine = leaf([0.8, 0.3, 0.2, 0.6]), leaf([0.5, 0.4, 0.7, 0.1])
    positive = torch.tensor([True, True, False, False])
    loss = paradoxical_loss(coarse, fine, positive)
    # Of the background, 1 - 0.2 against 1 - 0.7, and 1 - 0.6 against 1 - 0.1.
    expected = torch.tensor([0.3, 0.0, 0.5, 0.0], dtype=torch.float64)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    # The gradients with respect to both networks are opposite.
    assert coarse.grad.tolist() == [1, 0, -1, 0]
    assert fine.grad.tolist() == [-1, 0, 1, 0]


# Coarse and fine probability, lesion or not, and the loss at (0.1, 0.7), margin 0.05, weights 2, 3.
CASES = [
    ("right, lesion, not sure enough", 0.6, 0.9, True, 2 * (0.75 - 0.6), -2),
    ("right, lesion, sure but within the margin", 0.72, 0.9, True, 2 * (0.75 - 0.72), -2),
    ("right, lesion, sure", 0.76, 0.1, True, 0, 0),
    ("right, background, not sure enough", 0.3, 0.9, False, 2 * (0.95 - 0.7), 2),
    ("right, background, sure", 0.04, 0.9, False, 0, 0),
    ("missed with confidence, found by the fine network", 0.02, 0.9, True, 3 * (0.98 - 0.9), -3),
    ("missed without confidence, found by the fine network", 0.2, 0.9, True, 0, 0),
    ("missed by both", 0.02, 0.3, True, 0, 0),
    ("false lesion, unlike the fine network", 0.95, 0.2, False, 3 * (0.95 - 0.7), 3),
    ("false lesion of both", 0.95, 0.8, False, 0, 0),
]


def test_executive_loss_by_hand():
    names, *columns, expected, gradient = zip(*CASES)
    coarse, fine, positive = leaf(columns[0]), leaf(columns[1]), torch.tensor(columns[2])
    loss = executive_loss(coarse, fine, positive, (0.1, 0.7), 0.05, (2.0, 3.0))
    assert loss.dtype == torch.float64
    for name, found, value in zip(names, loss.tolist(), expected):
        assert found == pytest.approx(value, abs=1e-12), name
    loss.sum().backward()
    assert coarse.grad.tolist() == list(gradient)
    assert fine.grad is None


@pytest.mark.parametrize(
    ("thresholds", "score", "value"),
    # Where both thresholds are on one side of 0.5, the nearest one separates the classes.
    [((0.1, 0.3), 0.32, 0.35 - 0.32), ((0.6, 0.8), 0.58, 0.0), ((0.6, 0.8), 0.7, 0.85 - 0.7)],
)
def test_lesions_are_predicted_between_the_thresholds(thresholds, score, value):
    one = torch.tensor([score], dtype=torch.float64)
    loss = executive_loss(one, 1 - one, torch.tensor([True]), thresholds, 0.05)
    # At 0.58 the coarse network misses a lesion, and so does the fine one, with 0.42.
    assert loss.item() == pytest.approx(value)
