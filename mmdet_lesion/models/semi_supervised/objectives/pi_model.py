"""The Π-model."""

from __future__ import annotations

import torch
from mmdet.registry import TASK_UTILS

from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import draw_symmetry, square_error

__all__ = ["PiModel"]


@TASK_UTILS.register_module()
class PiModel(UnsupervisedObjective):
    """Consistency of two stochastic passes of the same model.

    Loss: ``(p - p')²``, where ``p'`` is predicted in a second pass with another symmetry, other
    intensities and other dropout. Only ``p`` has a gradient, and only its pass updates the running
    statistics of batch norms. Normalizer: the number of active anchors.

    Args:
        include_labeled: Whether labeled patches take part, as in the paper.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Source: Laine and Aila (2017), algorithm 1.
    """

    def __init__(self, include_labeled: bool = True, **kwargs) -> None:
        super().__init__(**kwargs)
        self.include_labeled = include_labeled

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compare the two passes."""
        patches = context.unlabeled
        if self.include_labeled and context.labeled is not None:
            patches = torch.cat((patches, context.labeled))
        targets = context.student.targets(
            self.strong_view(patches, context), draw_symmetry(context.generator), stochastic=True
        )
        scores = context.student.logits(
            self.strong_view(patches, context), draw_symmetry(context.generator)
        ).sigmoid()
        return AnchorTerms(square_error(scores, targets), scores, targets)
