"""Dice loss of a mask head."""

import torch
from mmdet.models.losses import DiceLoss
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class MaskDiceLoss(DiceLoss):
    """``DiceLoss`` with the arguments of ``FCNMaskHead``'s loss, which names a class for each RoI.

    1 - (2 Σ p q + eps) / (Σ p + Σ q + eps) of each RoI, and their mean.

    Args:
        eps: smooths RoIs with little or no foreground.
        loss_weight: weight of the loss.

    Source: the Dice loss of A3D's and AlignShift's public mask head (Yang et al., 2020).
    """

    def __init__(self, eps: float = 0.01, loss_weight: float = 1.0) -> None:
        super().__init__(naive_dice=True, eps=eps, loss_weight=loss_weight)

    def forward(self, mask_preds: Tensor, mask_targets: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            mask_preds: (n, num_classes, h, w) logits.
            mask_targets: (n, h, w), 0 or 1.
            labels: (n,) class of each RoI.
        """
        rois = torch.arange(len(labels), device=labels.device)
        return super().forward(mask_preds[rois, labels], mask_targets)
