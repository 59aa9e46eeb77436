"""What a detector's predictions on unlabelled patches are made into before it learns from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from ...structures.boxes3d import CUBE_SYMMETRIES, CubeSymmetry

__all__ = ["binary_entropy", "draw_symmetries", "evaluating", "sharpen"]


def draw_symmetries(num: int) -> list[CubeSymmetry]:
    """Different symmetries of the cube, drawn by torch's generator.

    Args:
        num: 1 to 48.
    """
    return [CUBE_SYMMETRIES[index] for index in torch.randperm(len(CUBE_SYMMETRIES))[:num].tolist()]


def sharpen(scores: Tensor, temperature: float) -> Tensor:
    """``p^(1/T) / (p^(1/T) + (1 - p)^(1/T))``.

    Args:
        scores: Probabilities, any shape.
        temperature: T; below 1 pushes them towards 0 and 1.

    Source: MixMatch (Berthelot et al., 2019), equation 7; FocalMix, equation 4.
    """
    # The same as the quotient of powers, which would be 0 / 0 at low temperatures.
    return (torch.logit(scores) / temperature).sigmoid()


def binary_entropy(scores: Tensor) -> Tensor:
    """Entropy of probabilities in nats, same shape."""
    return torch.special.entr(scores) + torch.special.entr(1 - scores)


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode within the block, and every part's own mode again after it."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training
