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
    """Soft-target focal loss of every element.

    ``[a0 + y (a1 - a0)] * |y - p| ** gamma * CE(y, p)`` with ``p = sigmoid(pred)``. It is computed
    in float32 at least, whatever the logits are.

    Args:
        pred: logits, any shape.
        target: y in 0..1, same shape.
        alpha: (a0, a1), weights of the targets 0 and 1.
        gamma: focusing exponent, not negative.
        soft_alpha: take the first factor at y; otherwise at 1 where y > 0.5 and 0 elsewhere.
        soft_beta: the same for the second factor.

    Returns:
        float32 (float64 for float64 logits), the shape of ``pred``.

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
    """``|target - sigmoid(pred)|``, to full relative precision at hard targets."""
    # y - p = y (1 - p) - (1 - y) p, where 1 - p would lose its digits as a difference.
    return (target * (-pred).sigmoid() - (1 - target) * pred.sigmoid()).abs()


@MODELS.register_module()
class SoftFocalLoss(nn.Module):
    """Focal loss for soft targets; at hard ones it is the focal loss, value and gradient.

    Args:
        alpha: weights of the targets 0 and 1; between them it is linear.
        gamma: focusing exponent.
        soft_alpha: False takes alpha at the target rounded to 0 or 1 (ablation).
        soft_beta: False takes the focusing factor at the rounded target (ablation).
        reduction: ``'none'``, ``'mean'`` or ``'sum'``.
        loss_weight: factor.

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
                f"SoftFocalLoss: alpha={alpha} and gamma={gamma}, expected two weights and an "
                "exponent that are not negative"
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
        """Loss of logits against targets.

        Args:
            pred_logits: any shape, any floating type.
            target: in 0..1, same shape.
            weight: factor of each element; 0 leaves it out.
            avg_factor: what the sum is divided by instead of the number of elements.
            reduction_override: used instead of ``reduction``.

        Returns:
            A scalar, or the shape of ``pred_logits`` without reduction.

        Raises:
            InputError: the shapes differ.
        """
        if pred_logits.shape != target.shape:
            raise InputError(
                f"SoftFocalLoss: logits {tuple(pred_logits.shape)} and targets "
                f"{tuple(target.shape)}, expected one shape"
            )
        loss = soft_focal_loss(
            pred_logits, target, self.alpha, self.gamma, self.soft_alpha, self.soft_beta
        )
        reduction = reduction_override or self.reduction
        return self.loss_weight * weight_reduce_loss(loss, weight, reduction, avg_factor)
