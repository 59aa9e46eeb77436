import torch
from objective_toys import ToyNetwork, make_context, patch_of
from torch import nn

from mmdet_lesion.models.semi_supervised.objectives import (
    AnchorPredictor,
    VirtualAdversarialTraining,
)
from mmdet_lesion.models.semi_supervised.objectives.adversarial import (
    adversarial_direction,
    intensity_scale,
)


class Linear(nn.Module):
    """Eight anchors, whose logits are linear in the eight voxels of a patch."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 8, dtype=torch.float64))

    def forward(self, patches):
        return [(patches.flatten(1) @ self.weight).view(-1, 1, 2, 2, 2)]


def direction_of(iterations, seed=0):
    model = Linear()
    patches = torch.randn(2, 1, 2, 2, 2, dtype=torch.float64)
    student = AnchorPredictor(model, model.__call__)
    targets = student.targets(patches)
    found = adversarial_direction(
        student,
        patches,
        targets,
        torch.ones_like(targets, dtype=torch.bool),
        xi=1e-5,
        power_iterations=iterations,
        generator=torch.Generator().manual_seed(seed),
    )
    # The Hessian of the KL at r = 0 is W diag(p (1 - p)) W'.
    hessians = torch.einsum("ia,na,ja->nij", model.weight, targets * (1 - targets), model.weight)
    return found.flatten(1), hessians.detach()


def test_direction_is_the_dominant_eigenvector():
    found, hessians = direction_of(300)
    expected = torch.linalg.eigh(hessians).eigenvectors[..., -1]
    torch.testing.assert_close((found * expected).sum(1).abs(), torch.ones(2).double())


def test_one_power_iteration_multiplies_by_the_hessian():
    found, hessians = direction_of(1)
    start = torch.randn(2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = nn.functional.normalize(torch.einsum("nij,nj->ni", hessians, start))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_formula():
    z = torch.tensor([2.0, -1, 0, -9, -9, -9, -9, 3], dtype=torch.float64)
    model, patches = ToyNetwork(), patch_of(z)
    objective = VirtualAdversarialTraining(epsilon=0.5)
    losses, _ = objective(make_context(model, patches, generator=torch.Generator()))
    losses["loss_virtual_adversarial_training"].backward()
    shift = model.trained_on[-1] - patches
    torch.testing.assert_close(shift.norm(), 0.5 * patches.std())
    # Background has no share in the perturbation.
    assert (shift.abs().amax(dim=(0, 1)) > 0).sum() == 4 * 8
    y = torch.nn.functional.avg_pool3d(patches + shift, 2).flatten()
    active = z > -9
    p, q = z.sigmoid()[active], y.sigmoid()[active]
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    torch.testing.assert_close(losses["loss_virtual_adversarial_training"], kl.mean())
    # p has no gradient: dKL/dz = q - p.
    torch.testing.assert_close(model.bias.grad, (q - p).mean())


def test_perturbation_is_worse_than_a_random_one():
    torch.manual_seed(1)
    model = Linear()
    patches = torch.randn(1, 1, 2, 2, 2, dtype=torch.float64)
    model.strides = (1,)
    context = make_context(model, patches, generator=torch.Generator().manual_seed(0))
    objective = VirtualAdversarialTraining(xi=0.01, epsilon=0.1, power_iterations=5, active_thr=-1)
    adversarial = objective.compute(context).losses.sum()
    p = context.student.targets(patches)
    noise = nn.functional.normalize(torch.randn(100, 8, dtype=torch.float64))
    noise = 0.1 * intensity_scale(patches) * noise.view(100, 1, 2, 2, 2)
    q = context.student.targets(patches + noise)
    random = (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1)
    assert adversarial > random.mean() * 1.5


def test_default_finite_difference_survives_float32(monkeypatch):
    model = ToyNetwork(gain=10.0, bias=-6.0)
    patches = torch.rand(1, 1, 64, 64, 64, dtype=torch.float64) * 0.5
    patches[..., 30:34, 30:34, 30:34] += 0.5
    start = torch.randn_like(patches)

    def direction(dtype, xi):
        model.to(dtype)
        x = patches.to(dtype)
        student = AnchorPredictor(model, model.__call__)
        targets = student.targets(x)
        monkeypatch.setattr(torch, "randn", lambda *_, **__: start.to(dtype))
        found = adversarial_direction(student, x, targets, targets > 0.5, xi=xi, power_iterations=1)
        return found.double().flatten()

    default = VirtualAdversarialTraining().xi
    exact = direction(torch.float64, 1e-3)
    assert torch.dot(direction(torch.float32, default), exact) > 0.99
    # The published 1e-6, which is absolute and for images of 32 x 32, would be noise here.
    assert torch.dot(direction(torch.float32, 1e-6), exact) < 0.9


def test_vanishing_gradient_gives_no_perturbation():
    model = ToyNetwork(gain=0.0)
    patches = torch.rand(1, 1, 4, 4, 4, dtype=torch.float64)
    VirtualAdversarialTraining().compute(make_context(model, patches))
    assert torch.equal(model.trained_on[-1], patches)
