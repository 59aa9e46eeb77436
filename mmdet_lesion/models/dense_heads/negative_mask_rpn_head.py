"""RPN head for training with missing annotations."""

import math

import numpy as np
import torch
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmengine.dist import get_rank
from torch import Tensor

from ...errors import InputError


@MODELS.register_module()
class NegativeMaskRPNHead(RPNHead):
    """``RPNHead`` that randomly masks sampled negatives and reduces the weight of the others.

    Anchors on a lesion without an annotation are false negatives. In each step only a random part
    of the negatives contributes to the classification loss, with a reduced weight:

        L = -Σ [y log p + λ m (1 - y) log(1 - p)] / (number of sampled anchors)

    where m = 1 if n ~ N(0, 1), drawn for each negative and step, exceeds the threshold, else 0.
    The number of sampled anchors includes masked ones. The box loss is unchanged.

    The mask has a random generator of its own that is seeded from torch's seed, so that samplers
    and augmentation are the same with and without the mask. If the seed is set for every iteration
    (``ExactResumeHook``), a resumed run draws the same masks.

    With the mask, ``rpn_negatives_kept``, the fraction of negatives that are kept, is logged.

    Args:
        neg_mask: Whether to mask negatives.
        mask_threshold: Negatives with n above the threshold are kept, a fraction of
            1 - Φ(threshold).
        neg_weight: λ, the weight of the kept negatives.

    Other arguments are those of ``RPNHead``; ``neg_mask=False, neg_weight=1`` is equivalent to it.

    Source: "negative anchor mask" and "negative proportion reduce factor", sections 2.1 and 2.2 of
    the paper in ``configs/partial_label``.
    """

    def __init__(
        self,
        *args,
        neg_mask: bool = True,
        mask_threshold: float = 0.0,
        neg_weight: float = 0.6,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        if not (neg_weight >= 0 and math.isfinite(neg_weight)) or math.isnan(mask_threshold):
            raise InputError(
                f"NegativeMaskRPNHead: neg_weight={neg_weight} and mask_threshold="
                f"{mask_threshold}; expected a finite, non-negative weight and a number"
            )
        self.neg_mask = neg_mask
        self.mask_threshold = mask_threshold
        self.neg_weight = neg_weight
        self._seed: int | None = None
        self._generator: np.random.Generator | None = None
        self._kept = 0
        self._negatives = 0

    def get_targets(self, *args, **kwargs) -> tuple:
        """Compute the targets of ``RPNHead`` with masked and reduced weights of the negatives."""
        targets = super().get_targets(*args, **kwargs)
        labels, label_weights = targets[:2]
        self._kept = self._negatives = 0
        if self.neg_mask or self.neg_weight != 1:
            label_weights = [self._reweighted(*level) for level in zip(labels, label_weights)]
        return (labels, label_weights, *targets[2:])

    def loss_by_feat(self, *args, **kwargs) -> dict:
        """As ``RPNHead``'s, with the share of negatives that the mask has kept."""
        losses = super().loss_by_feat(*args, **kwargs)
        if self.neg_mask:
            kept = self._kept / self._negatives if self._negatives else 1.0
            losses["rpn_negatives_kept"] = losses["loss_rpn_cls"][0].new_tensor(kept)
        return losses

    def _reweighted(self, labels: Tensor, label_weights: Tensor) -> Tensor:
        """Return the label weights (N, anchors) of one level; 0 for anchors not sampled."""
        negatives = torch.nonzero((labels == self.num_classes) & (label_weights > 0))
        rows, columns = negatives.unbind(1)
        factor = label_weights.new_full((len(negatives),), self.neg_weight)
        if self.neg_mask:
            kept = self._draw(len(negatives)) > self.mask_threshold
            self._kept += int(kept.sum())
            self._negatives += len(kept)
            factor *= torch.from_numpy(kept).to(factor)
        label_weights = label_weights.clone()
        label_weights[rows, columns] *= factor
        return label_weights

    def _draw(self, size: int) -> np.ndarray:
        """Draw normal numbers; the generator is reset whenever torch's seed changes."""
        seed = torch.initial_seed()
        if self._generator is None or seed != self._seed:
            self._seed = seed
            # Other code may have seeded NumPy with the bare seed.
            self._generator = np.random.default_rng((*b"negative mask", get_rank(), seed))
        return self._generator.standard_normal(size)
