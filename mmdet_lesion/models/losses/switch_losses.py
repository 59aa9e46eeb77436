"""Losses of SOS, which train a coarse network to know where a fine one has to look."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["executive_loss", "paradoxical_loss"]


def paradoxical_loss(coarse: Tensor, fine: Tensor, positive: Tensor) -> Tensor:
    """Compute by how much the fine network is less sure of the truth than the coarse one.

    ``max(c - f, 0)`` of the probabilities c and f of the true class. It has a gradient with respect
    to both.

    Args:
        coarse: Probabilities of a lesion by the coarse network, any shape.
        fine: Those by the fine network, same shape.
        positive: Whether there is a lesion, same shape, bool.

    Returns:
        Losses without reduction, same shape.

    Source: SOS (Maksoud et al., 2020), L_2.
    """
    return (_of_truth(coarse, positive) - _of_truth(fine, positive)).clamp(min=0)


def executive_loss(
    coarse: Tensor,
    fine: Tensor,
    positive: Tensor,
    switch_thr: tuple[float, float],
    margin: float,
    weights: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Compute the loss that moves the confidence of the coarse network across the switch.

    The confidence m is the probability of the class that the coarse network predicts, and c the
    confidence from which the switch accepts it: ``high`` for a lesion and ``1 - low`` for
    background. Where the coarse network is right, the loss is ``w0 * max(c + margin - m, 0)``;
    where it is wrong and the fine network is right, ``w1 * max(m - c, 0)``; elsewhere 0. The class
    changes at 0.5, or at the threshold of the switch nearest to it if both are on one side of it.

    It has no gradient with respect to the fine network.

    Args:
        coarse: Probabilities of a lesion by the coarse network, any shape.
        fine: Those by the fine network, same shape.
        positive: Whether there is a lesion, same shape, bool.
        switch_thr: Thresholds ``(low, high)`` between which the coarse network is unsure.
        margin: Distance from the threshold that is demanded where the coarse network is right.
        weights: Weights ``(w0, w1)``.

    Returns:
        Losses without reduction, same shape.

    Source: SOS (Maksoud et al., 2020), L_3, whose single threshold is split into one per class.
    """
    low, high = switch_thr
    border = min(max(0.5, low), high)
    lesion = coarse >= border
    confidence = torch.where(lesion, coarse, 1 - coarse)
    demanded = torch.where(lesion, coarse.new_tensor(high), coarse.new_tensor(1 - low))
    right = lesion == positive
    only_fine = ~right & ((fine >= border) == positive)
    return weights[0] * right * (demanded + margin - confidence).clamp(min=0) + weights[
        1
    ] * only_fine * (confidence - demanded).clamp(min=0)


def _of_truth(scores: Tensor, positive: Tensor) -> Tensor:
    """Return the probability of the true class."""
    return torch.where(positive, scores, 1 - scores)
