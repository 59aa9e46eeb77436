"""Entropy minimization."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS

from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import draw_symmetry, entropy_of_logits

__all__ = ["EntropyMinimization"]


@TASK_UTILS.register_module()
class EntropyMinimization(UnsupervisedObjective):
    """Minimization of the entropy of the predictions.

    Loss: ``H(p) = -p log p - (1 - p) log(1 - p)`` in nats; there is no target, so logs refer to
    the prediction itself. Normalizer: the number of active anchors.

    Args:
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Source: Grandvalet and Bengio (2005).
    """

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the entropy."""
        logits = context.student.logits(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        )
        scores = logits.sigmoid().detach()
        return AnchorTerms(entropy_of_logits(logits), scores, scores)
