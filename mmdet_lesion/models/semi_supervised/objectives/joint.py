"""Objectives that train on unlabeled patches in the pass of the labeled ones."""

from __future__ import annotations

from abc import abstractmethod

from ....errors import InputError
from ..target_guess import GuessedTargets
from .base import UnsupervisedObjective
from .context import JointPass, ObjectiveContext

__all__ = ["JointObjective"]


class JointObjective(UnsupervisedObjective):
    """Objective whose unlabeled patches are in one batch with the labeled ones.

    The detector asks for targets (:meth:`guess`), applies its ``batch_pipeline`` to labeled and
    unlabeled patches together, predicts on all of them in one pass, and gives the result to
    :meth:`compute` as ``context.joint``. A detector has at most one such objective.

    Args:
        **kwargs: Arguments of :class:`UnsupervisedObjective`, without ``augment``.

    Raises:
        InputError: An argument is invalid.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self.require(
            self.augment is None,
            "augment is set; expected none, since batch_pipeline transforms the patches",
        )

    def joint_pass(self, context: ObjectiveContext) -> JointPass:
        """Return the pass of labeled and unlabeled patches.

        Raises:
            InputError: The detector has not made one.
        """
        if context.joint is None:
            raise InputError(
                f"{type(self).__name__}: no pass of labeled and unlabeled patches; expected a "
                "detector that trains on the targets of guess()"
            )
        return context.joint

    @abstractmethod
    def guess(self, context: ObjectiveContext) -> GuessedTargets:
        """Guess the targets of the unlabeled patches, and their objects, without gradient.

        Scores that are not finite are left out of the loss.
        """
