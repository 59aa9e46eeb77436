import math

import pytest
import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import UDA


def test_formula():
    # Weak probabilities: 0.95, 0.88, 0.73 (not used), 0.5 (not used), 0.08, 0.0001.
    z = torch.tensor([3.0, 2, 1, 0, -2.5, -9, -9, -9], dtype=torch.float64)
    model, objective = ToyNetwork(), UDA()
    objective.augment = Scale(0.5)
    losses, logs = objective(make_context(model, patch_of(z)))
    losses["loss_uda"].backward()
    used = [0, 1, 4]
    # Sharpening divides logits by the temperature.
    q, p = (z / 0.4).sigmoid()[used], (0.5 * z).sigmoid()[used]
    kl = q * (q / p).log() + (1 - q) * ((1 - q) / (1 - p)).log()
    torch.testing.assert_close(losses["loss_uda"], kl.mean())
    torch.testing.assert_close(model.bias.grad, (p - q).mean())
    entropy = -(q * q.log() + (1 - q) * (1 - q).log())
    torch.testing.assert_close(logs["uda_entropy"], entropy.mean())
    torch.testing.assert_close(logs["uda_confidence"], torch.maximum(q, 1 - q).mean())


@pytest.mark.parametrize(
    ("annealing", "threshold"),
    [
        ("linear", 0.5 + 0.5 * 0.25),
        ("log", 0.5 + 0.5 * (1 - math.exp(-1.25))),
        ("exp", 0.5 + 0.5 * math.exp(-3.75)),
        (None, 1.0),
    ],
)
def test_training_signal_annealing(annealing, threshold):
    context = make_context(ToyNetwork(), patch_of([[0.0] * 8]), 25, 100)
    correct = torch.tensor([threshold - 0.01, threshold + 0.01, 0.2], dtype=torch.float64)
    correct = correct.clamp(max=0.999)
    for target in (0.0, 1.0):
        targets = torch.full_like(correct, target)
        logits = torch.logit(correct) * (2 * target - 1)
        mask = UDA(annealing=annealing).supervised_mask(logits, targets, context)
        assert mask.tolist() == [True, annealing is None, True]
