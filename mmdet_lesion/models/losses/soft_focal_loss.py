"""Focal loss for targets between 0 and 1."""

from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import MODELS
from torch import Tensor, nn

from ...errors import InputError


def soft_focal_loss(
    pred: Tensor,
    target: Tensor,
    alpha: Sequence[float] = (0.05, 0.95),
    gamma: float = 2.0,
    soft_alpha: bool = True,
    soft_beta: bool = True,
) -> Tensor:
    """Compute the focal loss for soft targets without reduction.

    ``[a0 + y (a1 - a0)] * |y - p| ** gamma * CE(y, p)`` with ``p = sigmoid(pred)``, computed in
    float32 or float64.

    Args:
        pred: Logits, any shape.
        target: Targets y in 0..1, same shape.
        alpha: Weights (a0, a1) of the targets 0 and 1.
        gamma: Focusing exponent, not negative.
        soft_alpha: Whether to compute the first factor at y; otherwise at y rounded to 0 or 1.
        soft_beta: The same for the second factor.

    Returns:
        Losses with the shape of ``pred``, float32 (float64 for float64 logits).

    Source: FocalMix (Wang et al., 2020), equation 9 and table 3 (a).
    """
    if pred.dtype not in (torch.float32, torch.float64):
        pred = pred.float()
    target = target.to(pred.dtype)
    hard = (target > 0.5).to(pred.dtype)
    weight = alpha[0] + (target if soft_alpha else hard) * (alpha[1] - alpha[0])
    distance = _distance(pred, target if soft_beta else hard)
    entropy = F.binary_cross_entropy_with_logits(pred, target, reduction="none")
    return weight * distance.pow(gamma) * entropy


def _distance(pred: Tensor, target: Tensor) -> Tensor:
    """Compute ``|target - sigmoid(pred)|``, with full relative precision at hard targets."""
    # y - p = y (1 - p) - (1 - y) p; computing 1 - p as a difference would lose precision.
    return (target * (-pred).sigmoid() - (1 - target) * pred.sigmoid()).abs()


@MODELS.register_module()
class SoftFocalLoss(nn.Module):
    """Focal loss for soft targets; equal to the focal loss at targets of 0 and 1.

    Args:
        alpha: Weights of the targets 0 and 1, interpolated linearly in between.
        gamma: Focusing exponent.
        soft_alpha: Whether to compute alpha at the soft target; False rounds the target to 0 or 1
            (ablation).
        soft_beta: Whether to compute the focusing factor at the soft target; False rounds the
            target (ablation).
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        loss_weight: Weight of the loss.

    Source: FocalMix (Wang et al., 2020), equation 9.
    """

    def __init__(
        self,
        alpha: Sequence[float] = (0.05, 0.95),
        gamma: float = 2.0,
        soft_alpha: bool = True,
        soft_beta: bool = True,
        reduction: str = "mean",
        loss_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if len(alpha) != 2 or min(alpha) < 0 or gamma < 0:
            raise InputError(
                f"SoftFocalLoss: alpha={alpha} and gamma={gamma}; expected two non-negative "
                "weights and a non-negative exponent"
            )
        self.alpha = tuple(alpha)
        self.gamma = gamma
        self.soft_alpha = soft_alpha
        self.soft_beta = soft_beta
        self.reduction = reduction
        self.loss_weight = loss_weight

    def forward(
        self,
        pred_logits: Tensor,
        target: Tensor,
        weight: Optional[Tensor] = None,
        avg_factor: Optional[float] = None,
        reduction_override: Optional[str] = None,
    ) -> Tensor:
        """Compute the loss.

        Args:
            pred_logits: Logits, any shape and floating-point type.
            target: Targets in 0..1, same shape.
            weight: Weight of each element, same shape.
            avg_factor: Divisor of the sum; by default the number of elements.
            reduction_override: Replaces ``reduction``.

        Returns:
            A scalar, or without reduction a tensor of the shape of ``pred_logits``.

        Raises:
            InputError: The shapes differ.
        """
        if pred_logits.shape != target.shape:
            raise InputError(
                f"SoftFocalLoss: logits {tuple(pred_logits.shape)} and targets "
                f"{tuple(target.shape)}; expected equal shapes"
            )
        loss = soft_focal_loss(
            pred_logits, target, self.alpha, self.gamma, self.soft_alpha, self.soft_beta
        )
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
