"""Adversarial perturbations of patches."""

from __future__ import annotations

import torch
from torch import Tensor

from .context import AnchorPredictor, untracked_statistics
from .functional import kl_divergence

__all__ = ["adversarial_direction", "intensity_scale"]


def adversarial_direction(
    student: AnchorPredictor,
    patches: Tensor,
    targets: Tensor,
    active: Tensor,
    *,
    xi: float,
    power_iterations: int,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Approximate the dominant eigenvector of the Hessian of the KL by power iterations.

    Args:
        student: The model; its batch norms' running statistics do not change.
        patches: Patches (N, 1, D, H, W).
        targets: Probabilities of their anchors, shape (N, A).
        active: Anchors whose KL is summed, shape (N, A), bool.
        xi: Norm of the finite difference, in units of :func:`intensity_scale`.
        power_iterations: Number of iterations.
        generator: Source of the random initial direction.

    Returns:
        Directions of norm 1, or of norm 0 where the gradient vanishes, shape (N, 1, D, H, W).

    Source: Miyato et al. (2017), section 3.3 and algorithm 1.
    """
    device = patches.device if generator is None else generator.device
    noise = torch.randn(patches.shape, generator=generator, device=device, dtype=patches.dtype)
    direction = _normalize(noise.to(patches.device))
    for _ in range(power_iterations):
        shift = (xi * intensity_scale(patches) * direction).requires_grad_()
        # The backward pass recomputes checkpointed activations, so it belongs here as well.
        with torch.enable_grad(), untracked_statistics(student.module):
            divergence = kl_divergence(targets, student.logits(patches + shift))
            (gradient,) = torch.autograd.grad(divergence[active].sum(), shift)
        direction = _normalize(gradient)
    return direction


def intensity_scale(patches: Tensor) -> Tensor:
    """Return the standard deviation of the intensities of each patch, shape (N, 1, 1, 1, 1)."""
    return patches.std(dim=(1, 2, 3, 4), keepdim=True)


def _normalize(vectors: Tensor) -> Tensor:
    norm = vectors.flatten(1).norm(dim=1).view(-1, 1, 1, 1, 1)
    return vectors / norm.clamp(min=torch.finfo(vectors.dtype).tiny)
