"""Consistency with a mean teacher."""

from __future__ import annotations

from mmdet.registry import TASK_UTILS

from ....errors import InputError
from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import draw_symmetry, square_error

__all__ = ["MeanTeacherConsistency"]


@TASK_UTILS.register_module()
class MeanTeacherConsistency(UnsupervisedObjective):
    """Consistency with the averaged model of a ``TeacherEMAHook`` under another view.

    Loss: ``(p - p')²``, where ``p'`` is the teacher's probability. Normalizer: the number of active
    anchors.

    Args:
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: There is no averaged model.

    Source: Tarvainen and Valpola (2017). Their decay is 0.99 during the ramp and 0.999 afterwards.
    """

    needs_teacher = True

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compare student and teacher."""
        if context.teacher is None:
            raise InputError(
                "MeanTeacherConsistency: there is no averaged model; expected a TeacherEMAHook in "
                "custom_hooks"
            )
        targets = context.teacher.targets(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        )
        scores = context.student.logits(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        ).sigmoid()
        return AnchorTerms(square_error(scores, targets), scores, targets)
