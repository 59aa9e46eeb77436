"""A region proposal network that trusts negatives less where labels are missing."""

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
    """``RPNHead`` whose sampled negatives are masked at random and weighted.

    A lesion without a label makes anchors on it negatives. So only some negatives, others in each
    step, take part in the classification loss, and those with a smaller weight:

        L = -Σ [y log p + λ m (1 - y) log(1 - p)] / (number of sampled anchors)

    with m = 1 where n ~ N(0, 1) exceeds the threshold, one draw for each negative and step. The
    normalizer stays the number of anchors as sampled, and the box loss as it is.

    The draws follow torch's seed without drawing from torch's generators, so that everything else
    of a training (samplers, augmentation) is the same with and without the mask. Where the seed is
    set anew for every iteration (``ExactResumeHook``) a resumed run draws the same masks.

    With the mask, the losses also hold ``rpn_negatives_kept``, the share of the negatives that
    were kept, which is logged and not summed.

    Args:
        neg_mask: mask negatives.
        mask_threshold: negatives with n above it are kept, a share of 1 - Φ(threshold).
        neg_weight: λ, the weight of the negatives that are kept.

    Others as in ``RPNHead``. ``neg_mask=False, neg_weight=1`` is ``RPNHead``.

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
                f"{mask_threshold}, expected a finite weight of at least 0 and a number"
            )
        self.neg_mask = neg_mask
        self.mask_threshold = mask_threshold
        self.neg_weight = neg_weight
        self._seed: int | None = None
        self._generator: np.random.Generator | None = None
        self._kept = 0
        self._negatives = 0

    def get_targets(self, *args, **kwargs) -> tuple:
        """As ``RPNHead``'s, with the negatives' label weights masked and weighted."""
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
        """Weights of one level, (N, anchors); anchors that were not sampled have weight 0."""
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
        """Normal numbers from a stream that begins anew whenever torch is seeded anew."""
        seed = torch.initial_seed()
        if self._generator is None or seed != self._seed:
            self._seed = seed
            # Not the bare seed, with which others may have seeded numpy.
            self._generator = np.random.default_rng((*b"negative mask", get_rank(), seed))
        return self._generator.standard_normal(size)
