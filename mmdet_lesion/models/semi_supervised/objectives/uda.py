"""Unsupervised data augmentation."""

from __future__ import annotations

import math

import torch
from mmdet.registry import TASK_UTILS
from torch import Tensor

from ..target_guess import sharpen
from .base import STRONG_VIEW, AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import draw_symmetry, kl_divergence

__all__ = ["UDA"]

_SCHEDULES = {
    "linear": lambda progress: progress,
    "log": lambda progress: 1 - math.exp(-5 * progress),
    "exp": lambda progress: math.exp(5 * (progress - 1)),
}


@TASK_UTILS.register_module()
class UDA(UnsupervisedObjective):
    """Unsupervised data augmentation (UDA).

    The target is the sharpened probability of a weak view, a symmetry of the patch, where
    ``max(p, 1 - p) > confidence_thr`` before sharpening. Loss: ``KL(target || p)`` of a strong
    view. Normalizer: the number of active anchors among those used.

    Training-signal annealing (:meth:`supervised_mask`) drops the supervised loss of anchors that
    are predicted better than a threshold, which rises from 0.5 to 1 during the training.

    Args:
        temperature: Temperature of the sharpening.
        confidence_thr: Largest confidence that is not used, 0.5 to 1.
        annealing: Schedule of the training-signal annealing, ``'linear'``, ``'log'`` or ``'exp'``,
            or None for the whole supervised loss.
        augment: Intensity transform of the strong view.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: An argument is invalid.

    Source: Xie et al. (2019), sections 2 and 3.
    """

    def __init__(
        self,
        temperature: float = 0.4,
        confidence_thr: float = 0.8,
        annealing: str | None = "linear",
        augment: dict | None = STRONG_VIEW,
        **kwargs,
    ) -> None:
        super().__init__(augment=augment, **kwargs)
        self.require(temperature > 0, f"temperature={temperature}; expected a positive number")
        self.require(
            0.5 <= confidence_thr < 1,
            f"confidence_thr={confidence_thr}; expected at least 0.5 and less than 1",
        )
        self.require(
            annealing is None or annealing in _SCHEDULES,
            f"annealing={annealing!r}; expected None or one of {', '.join(_SCHEDULES)}",
        )
        self.temperature = temperature
        self.confidence_thr = confidence_thr
        self.annealing = annealing

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the divergence of the strong view from the target."""
        guessed = context.student.targets(context.unlabeled, draw_symmetry(context.generator))
        used = torch.maximum(guessed, 1 - guessed) > self.confidence_thr
        targets = sharpen(guessed, self.temperature)
        logits = context.student.logits(
            self.strong_view(context.unlabeled, context), draw_symmetry(context.generator)
        )
        return AnchorTerms(kl_divergence(targets, logits), logits.sigmoid(), targets, used)

    def supervised_mask(self, logits: Tensor, targets: Tensor, context: ObjectiveContext) -> Tensor:
        """Return the anchors whose correct class has at most the threshold's probability."""
        if self.annealing is None:
            return super().supervised_mask(logits, targets, context)
        progress = context.iteration / context.total_iterations
        threshold = 0.5 + 0.5 * _SCHEDULES[self.annealing](progress)
        scores = logits.detach().sigmoid()
        return torch.where(targets > 0.5, scores, 1 - scores) <= threshold
