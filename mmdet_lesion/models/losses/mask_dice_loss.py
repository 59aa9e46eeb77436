"""Dice loss for mask heads."""

import torch
from mmdet.models.losses import DiceLoss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class MaskDiceLoss(DiceLoss):
    """``DiceLoss`` with the call signature that ``FCNMaskHead`` expects of its loss.

    The loss is the mean of ``1 - (2 Σ p q + eps) / (Σ p + Σ q + eps)`` over the RoIs.

    Args:
        eps: Smoothing term for RoIs with little or no foreground.
        loss_weight: Weight of the loss.

    Source: the published mask head of A3D and AlignShift (Yang et al., 2020).
    """

    def __init__(self, eps: float = 0.01, loss_weight: float = 1.0) -> None:
        super().__init__(naive_dice=True, eps=eps, loss_weight=loss_weight)

    def forward(self, mask_preds: Tensor, mask_targets: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            mask_preds: Logits, shape (n, num_classes, h, w).
            mask_targets: Masks of 0 and 1, shape (n, h, w).
            labels: Class of each RoI, shape (n,).
        """
        rois = torch.arange(len(labels), device=labels.device)
        return super().forward(mask_preds[rois, labels], mask_targets)
