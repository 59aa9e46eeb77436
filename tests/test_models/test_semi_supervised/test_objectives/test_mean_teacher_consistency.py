import torch
from objective_toys import Scale, ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import MeanTeacherConsistency


def test_formula():
    z = torch.tensor([2.0, -1, 0, -9, -9, -9, -9, 5], dtype=torch.float64)
    model, teacher = ToyNetwork(), ToyNetwork(gain=0.5, bias=-1.0).eval()
    objective = MeanTeacherConsistency()
    # The teacher's view comes first.
    objective.augment = Scale(2.0, 1.0)
    losses, _ = objective(make_context(model, patch_of(z), teacher=teacher))
    losses["loss_mean_teacher_consistency"].backward()
    p, target, active = z.sigmoid(), (z - 1).sigmoid(), z > -9
    loss = (p - target).square()[active].mean()
    torch.testing.assert_close(losses["loss_mean_teacher_consistency"], loss)
    gradient = (2 * (p - target) * p * (1 - p))[active].mean()
    torch.testing.assert_close(model.bias.grad, gradient)
    assert teacher.bias.grad is None
