"""FixMatch."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS

from .base import STRONG_VIEW, AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import cross_entropy, draw_symmetry, pseudo_labels

__all__ = ["FixMatch"]


@TASK_UTILS.register_module()
class FixMatch(UnsupervisedObjective):
    """Confident predictions on a weak view as labels of a strong view.

    The weak view is a symmetry of the patch, the strong one another symmetry and changed
    intensities. Anchors with ``p >= pos_thr`` get the target 1, those with ``p <= neg_thr`` the
    target 0, others are not used. Loss: cross-entropy. Normalizer: the number of active anchors
    among those used, that is, of pseudo-positives and of pseudo-negatives that the strong view
    takes for more than ``active_thr``.

    Args:
        pos_thr: Lowest probability of a positive.
        neg_thr: Highest probability of a negative; by default ``1 - pos_thr``.
        augment: Intensity transform of the strong view.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: The thresholds are out of order.

    Source: Sohn et al. (2020), equation 4.
    """

    def __init__(
        self,
        pos_thr: float = 0.95,
        neg_thr: float | None = None,
        augment: dict | None = STRONG_VIEW,
        **kwargs,
    ) -> None:
        super().__init__(augment=augment, **kwargs)
        neg_thr = 1 - pos_thr if neg_thr is None else neg_thr
        self.require(
            0 <= neg_thr < pos_thr <= 1,
            f"neg_thr={neg_thr:g} and pos_thr={pos_thr}; expected 0 <= neg_thr < pos_thr <= 1",
        )
        self.pos_thr = pos_thr
        self.neg_thr = neg_thr

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the cross-entropy of the strong view."""
        guessed = context.student.targets(context.unlabeled, draw_symmetry(context.generator))
        targets, used = pseudo_labels(guessed, self.pos_thr, self.neg_thr)
        logits = context.student.logits(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        )
        return AnchorTerms(cross_entropy(logits, targets), logits.sigmoid(), targets, used)
