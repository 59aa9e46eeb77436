"""Functions of anchor values that the objectives share.

Anchors are in the order of ``FocalMixHead.flatten``: levels from fine to coarse, each in the order
of its flattened (D, H, W) map, one anchor per location.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from mmdet.utils import reduce_mean
from torch import Tensor

from ....structures import CubeSymmetry
from ..target_guess import binary_entropy, draw_symmetries

__all__ = [
    "cross_entropy",
    "draw_symmetry",
    "entropy_of_logits",
    "join_levels",
    "kl_divergence",
    "masked_mean",
    "move_anchors",
    "pseudo_labels",
    "seeded",
    "split_levels",
    "square_error",
    "zero_nonfinite",
]


def split_levels(values: Tensor, size: Sequence[int], strides: Sequence[int]) -> list[Tensor]:
    """Split anchor values into the maps of the levels, which share memory with them.

    Args:
        values: Values of the anchors, shape (..., A).
        size: Size (D, H, W) of the patch in voxels, divisible by the strides.
        strides: Stride of each level.

    Returns:
        Maps (..., D / stride, H / stride, W / stride).
    """
    shapes = [torch.Size(edge // stride for edge in size) for stride in strides]
    parts = values.split([shape.numel() for shape in shapes], dim=-1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes)]


def join_levels(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate the maps (..., D, H, W) of all levels to (..., A), at least float32."""
    values = torch.cat([level.flatten(-3) for level in maps], dim=-1)
    return values if values.dtype == torch.float64 else values.float()


def move_anchors(
    values: Tensor, symmetry: CubeSymmetry, size: Sequence[int], strides: Sequence[int]
) -> Tensor:
    """Permute anchor values as a symmetry of the patch permutes the anchors.

    Args:
        values: Values of the anchors, shape (..., A).
        symmetry: Symmetry that is applied to the patch.
        size: Size (D, H, W) of the patch before the symmetry.
        strides: Stride of each level.

    Returns:
        Values of the anchors of the transformed patch, shape (..., A).
    """
    moved = [symmetry.apply(level) for level in split_levels(values, size, strides)]
    return torch.cat([level.flatten(-3) for level in moved], dim=-1)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Average values over a mask; 0 if the mask is empty.

    In distributed training the divisor is the average number of masked values of a process, as in
    mmdet's losses, so that the gradient is that of the mean over all processes.
    """
    count = reduce_mean(mask.sum().to(values.dtype))
    return torch.where(mask, values, torch.zeros_like(values)).sum() / count.clamp(min=1)


def zero_nonfinite(targets: Tensor) -> Tensor:
    """Replace NaN and infinity by 0.

    A mask on the loss does not suffice: its gradient would be ``0 * nan``.
    """
    return torch.where(targets.isfinite(), targets, 0.0)


def square_error(scores: Tensor, targets: Tensor) -> Tensor:
    """Compute ``(scores - targets)²``, 0 without gradient where the target is not finite."""
    return (scores - torch.where(targets.isfinite(), targets, scores.detach())).square()


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross-entropy of targets in 0..1 and logits in nats, without reduction.

    Targets that are not finite count as 0; their loss has to be masked.
    """
    targets = zero_nonfinite(targets).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def entropy_of_logits(logits: Tensor) -> Tensor:
    """Compute the entropy of ``sigmoid(logits)`` in nats; its gradient is always finite."""
    # The entropy of rounded probabilities would have infinite gradients where they are 0 or 1.
    return F.softplus(logits) - logits * logits.sigmoid()


def kl_divergence(targets: Tensor, logits: Tensor) -> Tensor:
    """Compute ``KL(targets || sigmoid(logits))`` of Bernoulli distributions in nats.

    Targets that are not finite count as 0; their loss has to be masked.
    """
    targets = zero_nonfinite(targets)
    return cross_entropy(logits, targets) - binary_entropy(targets).to(logits.dtype)


def pseudo_labels(scores: Tensor, pos_thr: float, neg_thr: float) -> tuple[Tensor, Tensor]:
    """Return hard targets of probabilities, and which of them are confident enough.

    Args:
        scores: Probabilities, any shape.
        pos_thr: Lowest probability of a positive.
        neg_thr: Highest probability of a negative.

    Returns:
        Targets of 0 and 1 with the type of ``scores``, and a mask. The target of NaN is NaN.
    """
    positive = scores >= pos_thr
    targets = torch.where(scores.isnan(), scores, positive.to(scores.dtype))
    return targets, positive | (scores <= neg_thr)


@contextmanager
def seeded(generator: torch.Generator | None) -> Iterator[None]:
    """Let functions that draw from torch's global CPU generator follow ``generator``.

    The state of the global generator is restored on exit. Without a generator, nothing changes.
    """
    if generator is None:
        yield
        return
    seed = torch.randint(2**62, (), generator=generator, device=generator.device)
    state = torch.random.get_rng_state()
    # Unlike torch.manual_seed, this leaves the generators of other devices alone.
    torch.default_generator.manual_seed(int(seed))
    try:
        yield
    finally:
        torch.random.set_rng_state(state)


def draw_symmetry(generator: torch.Generator | None) -> CubeSymmetry:
    """Draw one of the 48 symmetries of the cube."""
    with seeded(generator):
        return draw_symmetries(1)[0]
