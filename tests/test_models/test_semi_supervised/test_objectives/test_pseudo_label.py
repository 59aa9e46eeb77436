import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.losses import soft_focal_loss
from mmdet_lesion.models.semi_supervised.objectives import PseudoLabel

# Probabilities 0.98, 0.95, 0.73, 0.5, 0.08 and almost 0.
VALUES = torch.tensor([4.0, 3, 1, 0, -2.5, -9, -9, -9], dtype=torch.float64)


def test_cross_entropy():
    objective = PseudoLabel()
    objective.augment = Scale(0.5)
    losses, logs = objective(make_context(ToyNetwork(), patch_of(VALUES)))
    p = (0.5 * VALUES).sigmoid()
    # Two positives and one negative that the student takes for 0.22; the others are background.
    expected = -(p[0].log() + p[1].log() + (1 - p[4]).log()) / 3
    torch.testing.assert_close(losses["loss_pseudo_label"], expected)
    assert logs["pseudo_label_used"] == 3 / 8
    assert logs["pseudo_label_confidence"] == 1
    assert logs["pseudo_label_entropy"] == 0


def test_focal_loss_is_divided_by_the_positives():
    objective = PseudoLabel(focal=True)
    objective.augment = Scale(0.5)
    losses, logs = objective(make_context(ToyNetwork(), patch_of(VALUES)))
    used = torch.tensor([0, 1, 4, 5, 6, 7])
    targets = (VALUES > 2).double()
    expected = soft_focal_loss(0.5 * VALUES, targets)[used].sum() / 2
    torch.testing.assert_close(losses["loss_pseudo_label"], expected)
    assert logs["pseudo_label_used"] == 6 / 8


def test_focal_loss_reaches_the_anchors_of_one_nodule():
    # The weight of positives and the divisor do not depend on the number of anchors.
    gradients = []
    for edge in (4, 64):
        model, objective = ToyNetwork(gain=10.0, bias=-6.0), PseudoLabel(focal=True)
        objective.augment = Scale(0.5)
        patch = torch.zeros(1, 1, edge, edge, edge, dtype=torch.float64)
        patch[..., :2, :2, :2] = 1
        losses, _ = objective(make_context(model, patch))
        losses["loss_pseudo_label"].backward()
        gradients.append(model.trained_gradient().abs().max())
    assert gradients[0] > 0.1
    torch.testing.assert_close(*gradients)
