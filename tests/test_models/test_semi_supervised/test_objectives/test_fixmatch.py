import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import FixMatch


def test_formula():
    # Weak probabilities: 0.98, 0.92 (not used), 0.5 (not used), 0.047, 0.0001.
    z = torch.tensor([4.0, 2.5, 0, -3, -9, -9, -9, -9], dtype=torch.float64)
    model, objective = ToyNetwork(), FixMatch()
    objective.augment = Scale(0.5)
    losses, logs = objective(make_context(model, patch_of(z)))
    losses["loss_fix_match"].backward()
    p = (0.5 * z).sigmoid()
    # The negative at -3 is taken for 0.18 in the strong view, those at -9 for 0.01.
    torch.testing.assert_close(losses["loss_fix_match"], -(p[0].log() + (1 - p[3]).log()) / 2)
    torch.testing.assert_close(model.bias.grad, ((p[0] - 1) + p[3]) / 2)
    assert logs["fix_match_used"] == 2 / 8


def test_mean_over_all_confident_anchors():
    z = torch.tensor([4.0, 2.5, 0, -3, -9, -9, -9, -9], dtype=torch.float64)
    objective = FixMatch(active_thr=-1)
    objective.augment = None
    losses, _ = objective(make_context(ToyNetwork(), patch_of(z)))
    used = [0, 3, 4, 5, 6, 7]
    targets = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=torch.float64)
    expected = torch.nn.functional.binary_cross_entropy(z.sigmoid()[used], targets)
    torch.testing.assert_close(losses["loss_fix_match"], expected)


def test_the_strong_view_is_of_intensities_by_default():
    assert type(FixMatch().augment).__name__ == "RandomIntensity"
    assert FixMatch(augment=None).augment is None


def test_nodule_that_the_strong_view_misses_counts():
    z = torch.tensor([4.0, -9, -9, -9, -9, -9, -9, -9], dtype=torch.float64)
    model, objective = ToyNetwork(bias=-1.0), FixMatch()
    # Logits 4 in the weak and -6 in the strong view.
    objective.augment = Scale(-1.0)
    context = make_context(model, patch_of(torch.where(z > 0, z + 1, -3.0)))
    losses, _ = objective(context)
    p = torch.tensor([-6.0, 2.0], dtype=torch.float64).sigmoid()
    expected = -(p[0].log() + 7 * (1 - p[1]).log()) / 8
    torch.testing.assert_close(losses["loss_fix_match"], expected)
