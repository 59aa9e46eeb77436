"""What a detector's predictions on unlabelled patches are made into before it learns from them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...structures import CUBE_SYMMETRIES, CubeSymmetry

__all__ = ["binary_entropy", "draw_symmetries", "guessing", "sharpen"]


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
def guessing(module: nn.Module, batch_statistics: bool) -> Iterator[None]:
    """Set a module up for predicting training targets, and restore every part's mode after it.

    Args:
        module: The model, in any mode.
        batch_statistics: Batch norms that are in training mode normalize by the statistics of the
            batch at hand and leave their running statistics alone, as in MixMatch. Norms that a
            config keeps in evaluation mode, and all other parts, are in evaluation mode in any
            case.
    """
    modes = [(part, part.training) for part in module.modules()]
    norms = [
        part
        for part, training in modes
        if batch_statistics and training and isinstance(part, _BatchNorm)
        # Norms without running statistics use those of the batch in any mode.
        if part.track_running_stats
    ]
    module.eval()
    for norm in norms:
        # In training mode without tracking, torch passes no running statistics to be updated.
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True
        for part, training in modes:
            part.training = training
