import torch
from objective_toys import ToyNetwork, make_context, patch_of

from mmdet_lesion.models.semi_supervised.objectives import EntropyMinimization


def test_gradient():
    z = torch.tensor([2.0, -1, 0.5, -9, -9, -9, -9, 40], dtype=torch.float64)
    model = ToyNetwork()
    losses, _ = EntropyMinimization()(make_context(model, patch_of(z)))
    losses["loss_entropy_minimization"].backward()
    p = z.sigmoid()
    # dH/dz = -z p (1 - p).
    gradient = (-z * p * (1 - p))[z > -9].mean()
    torch.testing.assert_close(model.bias.grad, gradient)
