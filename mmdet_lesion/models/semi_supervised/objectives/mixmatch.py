"""MixMatch."""

from __future__ import annotations

import torch
from mmdet.registry import TASK_UTILS, TRANSFORMS

from ....errors import InputError
from ..target_guess import draw_symmetries, sharpen
from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import draw_symmetry, seeded, square_error

__all__ = ["MixMatch"]


@TASK_UTILS.register_module()
class MixMatch(UnsupervisedObjective):
    """Guessed targets of unlabeled patches, mixed with labeled patches.

    The target of an unlabeled patch is the sharpened mean of the probabilities under ``num_views``
    symmetries. Unlabeled and labeled patches are shuffled and mixed by ``ImageLevelMixUp``; unlike
    in the paper, one view of each unlabeled patch is trained on, not all K. Loss: the square error
    (Brier score) of the mixed unlabeled patches; the supervised loss remains that of the detector,
    with or without MixUp in its ``batch_pipeline``.
    Normalizer: the number of active anchors.

    Args:
        num_views: K, the number of different symmetries, 1 to 48.
        temperature: T, the temperature of the sharpening.
        beta: Both parameters of the beta distribution of the MixUp ratios.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: An argument is invalid, or there are no labeled patches.

    Source: Berthelot et al. (2019), algorithm 1 and equations 3 to 5.
    """

    def __init__(
        self, num_views: int = 2, temperature: float = 0.5, beta: float = 0.75, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.require(1 <= num_views <= 48, f"num_views={num_views}; expected 1 to 48")
        self.require(temperature > 0, f"temperature={temperature}; expected a positive number")
        self.require(beta > 0, f"beta={beta}; expected a positive number")
        self.num_views = num_views
        self.temperature = temperature
        self.mixup = TRANSFORMS.build(dict(type="ImageLevelMixUp", eta=beta))

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the square error of the mixed unlabeled patches."""
        if context.labeled is None or context.labeled_targets is None:
            raise InputError("MixMatch: a batch has no labeled patches; expected some to mix with")
        patches = context.unlabeled
        with seeded(context.generator):
            symmetries = draw_symmetries(self.num_views)
        guesses = [context.student.targets(patches, symmetry) for symmetry in symmetries]
        targets = sharpen(torch.stack(guesses).mean(0), self.temperature)
        used = torch.ones_like(targets, dtype=torch.bool)
        labeled_used = context.labeled_used
        if labeled_used is None:
            labeled_used = torch.ones_like(context.labeled_targets, dtype=torch.bool)
        batch = dict(
            inputs=torch.cat((self.strong_view(patches, context), context.labeled)),
            targets=torch.cat((targets, context.labeled_targets.to(targets))),
            used=torch.cat((used, labeled_used)),
        )
        with seeded(context.generator):
            batch = self.mixup(batch)
        inputs, targets, used = (
            batch[key][: len(patches)] for key in ("inputs", "targets", "used")
        )
        scores = context.student.logits(inputs, draw_symmetry(context.generator)).sigmoid()
        return AnchorTerms(square_error(scores, targets), scores, targets, used)
