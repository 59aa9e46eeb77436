"""Pseudo-labels."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS
from mmdet.utils import reduce_mean

from ...losses import soft_focal_loss
from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import cross_entropy, draw_symmetry, pseudo_labels, zero_nonfinite

__all__ = ["PseudoLabel"]


@TASK_UTILS.register_module()
class PseudoLabel(UnsupervisedObjective):
    """Training on the model's own confident predictions.

    Anchors with a predicted probability ``p >= pos_thr`` get the target 1, those with
    ``p <= neg_thr`` the target 0, others are not used. The student sees the patch under another
    symmetry than the prediction. Loss: cross-entropy or focal loss. Normalizer: for cross-entropy
    the number of active anchors among those used; for the focal loss the number of
    pseudo-positives, at least 1, as the number of positives in :class:`FocalMixHead`.

    Args:
        pos_thr: Lowest probability of a positive.
        neg_thr: Highest probability of a negative, below ``pos_thr``.
        focal: Whether to use the focal loss.
        alpha: Weights of negatives and positives in the focal loss.
        gamma: Exponent of the focal loss.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: The thresholds are out of order.

    Source: Lee (2013).
    """

    def __init__(
        self,
        pos_thr: float = 0.9,
        neg_thr: float = 0.1,
        focal: bool = False,
        alpha: tuple[float, float] = (0.05, 0.95),
        gamma: float = 2.0,
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.require(
            0 <= neg_thr < pos_thr <= 1,
            f"neg_thr={neg_thr} and pos_thr={pos_thr}; expected 0 <= neg_thr < pos_thr <= 1",
        )
        self.pos_thr = pos_thr
        self.neg_thr = neg_thr
        self.focal = focal
        self.alpha = alpha
        self.gamma = gamma

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the loss of the pseudo-labels."""
        guessed = context.student.targets(context.unlabeled, draw_symmetry(context.generator))
        targets, used = pseudo_labels(guessed, self.pos_thr, self.neg_thr)
        logits = context.student.logits(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        )
        scores = logits.sigmoid()
        if not self.focal:
            return AnchorTerms(cross_entropy(logits, targets), scores, targets, used)
        known = zero_nonfinite(targets)
        losses = soft_focal_loss(logits, known, self.alpha, self.gamma)
        positives = reduce_mean(known.sum()).clamp(min=1)
        return AnchorTerms(losses, scores, targets, used, positives)
