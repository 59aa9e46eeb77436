import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import MixMatch

UNLABELED = torch.tensor([[4.0, 1, 0, -9, -9, -9, -9, -9]], dtype=torch.float64)
LABELED = torch.tensor([[-9.0, 6, -9, 6, -9, -9, -9, -9]], dtype=torch.float64)


def swap(results):
    """Mix each patch with the other one, as ImageLevelMixUp does, with the ratio 0.75."""
    inputs, targets, used = (results[key] for key in ("inputs", "targets", "used"))
    return dict(
        inputs=0.75 * inputs + 0.25 * inputs.flip(0),
        targets=0.75 * targets + 0.25 * targets.flip(0),
        used=used & used.flip(0),
    )


def test_formula():
    model, objective = ToyNetwork(), MixMatch()
    objective.mixup = swap
    labels = torch.tensor([[0, 1, 0, 1, 0, 0, 0, 0.0]])
    # The labeled patch has an ignored anchor.
    used = torch.tensor([[True, True, False, True, True, True, True, True]])
    context = make_context(
        model,
        patch_of(UNLABELED),
        labeled=patch_of(LABELED),
        labeled_targets=labels,
        labeled_used=used,
    )
    losses, _ = objective(context)
    losses["loss_mix_match"].backward()
    q = (UNLABELED / 0.5).sigmoid()
    target = 0.75 * q + 0.25 * labels
    p = (0.75 * UNLABELED + 0.25 * LABELED).sigmoid()
    active = torch.tensor([[True, True, False, True, False, False, False, False]])
    torch.testing.assert_close(losses["loss_mix_match"], (p - target).square()[active].mean())
    gradient = (2 * (p - target) * p * (1 - p))[active].mean()
    torch.testing.assert_close(model.bias.grad, gradient)


def test_guess_is_the_sharpened_mean_over_symmetries():
    class Uneven(ToyNetwork):
        def forward(self, patches):
            ramp = torch.arange(8.0, dtype=torch.float64).view(2, 2, 2)
            return [level + ramp for level in super().forward(patches)]

    model, objective = Uneven(), MixMatch(num_views=48)
    objective.mixup = lambda results: results
    patches = patch_of(torch.zeros(1, 8))
    labels = torch.zeros(1, 8)
    context = make_context(model, patches, labeled=patches, labeled_targets=labels)
    # All symmetries take an anchor to each corner equally often.
    mean = torch.arange(8.0, dtype=torch.float64).sigmoid().mean()
    expected = mean**2 / (mean**2 + (1 - mean) ** 2)
    torch.testing.assert_close(objective.compute(context).targets, expected.expand(1, 8))


def test_labeled_patches_are_mixed_in():
    model, objective = ToyNetwork(), MixMatch(beta=5.0)
    objective.augment = Scale(0.0)
    ones = torch.ones(8, 1, 4, 4, 4, dtype=torch.float64)
    context = make_context(
        model, ones, labeled=ones, labeled_targets=torch.ones(8, 8), generator=torch.Generator()
    )
    terms = objective.compute(context)
    # The student saw the ratio of the labeled patch, 0 to 0.5, whose target is 1.
    ratio = model.trained_on[-1].mean(dim=(1, 2, 3, 4))
    assert 0 < ratio.max() <= 0.5
    guess = torch.tensor(2.0, dtype=torch.float64).sigmoid()
    expected = guess + ratio * (1 - guess)
    torch.testing.assert_close(terms.targets, expected[:, None].expand(8, 8))
