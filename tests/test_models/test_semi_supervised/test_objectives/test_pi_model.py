import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import PiModel

UNLABELED = [[2.0, -1, 0, -9, -9, -9, -9, -9]]
LABELED = [[4.0, -9, -9, -9, -9, -9, -9, -9]]


def by_hand(values):
    z = torch.tensor(values, dtype=torch.float64)
    target, p = (0.5 * z).sigmoid(), z.sigmoid()
    # At logit -9 one view is below 0.05 and the other one, at -4.5, as well.
    active = z > -9
    loss = (p - target)[active].square().mean()
    # Only p has a gradient.
    return loss, (2 * (p - target) * p * (1 - p))[active].mean(), active.double().mean()


def test_formula():
    for labeled, values in ((None, UNLABELED), (patch_of(LABELED), UNLABELED + LABELED)):
        model, objective = ToyNetwork(), PiModel()
        objective.augment = Scale(0.5, 1.0)
        losses, logs = objective(make_context(model, patch_of(UNLABELED), labeled=labeled))
        losses["loss_pi_model"].backward()
        loss, gradient, used = by_hand(values)
        torch.testing.assert_close(losses["loss_pi_model"], loss)
        torch.testing.assert_close(model.bias.grad, gradient)
        torch.testing.assert_close(logs["pi_model_used"], used)


def test_labeled_patches_are_optional():
    objective = PiModel(include_labeled=False)
    objective.augment = Scale(0.5, 1.0)
    context = make_context(ToyNetwork(), patch_of(UNLABELED), labeled=patch_of(LABELED))
    losses, _ = objective(context)
    torch.testing.assert_close(losses["loss_pi_model"], by_hand(UNLABELED)[0])


def test_the_second_pass_has_its_own_dropout():
    model = ToyNetwork(dropout=0.5)
    terms = PiModel().compute(make_context(model, patch_of([[2.0] * 8])))
    assert terms.targets.unique().numel() > 1
    assert not torch.equal(terms.targets, terms.scores)
