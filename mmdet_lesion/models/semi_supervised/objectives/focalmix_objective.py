"""The objective of FocalMix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mmdet.registry import TASK_UTILS
from torch import Tensor

from ....errors import InputError
from ....structures import CubeSymmetry
from ..target_guess import (
    GuessedTargets,
    binary_entropy,
    draw_symmetries,
    guess_targets,
    sharpen,
)
from .base import AnchorTerms
from .context import ObjectiveContext
from .functional import seeded
from .joint import JointObjective

if TYPE_CHECKING:
    from ...detectors import FocalMix

__all__ = ["FocalMixObjective"]

_GUESS_MODES = ("batch", "eval", "ema")


@TASK_UTILS.register_module()
class FocalMixObjective(JointObjective):
    """Sharpened average over symmetries as target, mixed with the labeled patches.

    A model (``guess_mode``) predicts the probability of every anchor under ``num_guesses``
    symmetries of the cube without gradient; the target is their sharpened average. Confident boxes
    are objects of the patch for :class:`ObjectLevelMixUp`. Loss: the classification loss of the
    detector's head, usually :class:`SoftFocalLoss`. Normalizer: :meth:`FocalMixHead.avg_factors`.

    Args:
        num_guesses: K, the number of different symmetries that are drawn for a batch, 1 to 48.
        temperature: T, the temperature of the sharpening.
        object_score_thr: Lowest probability of a predicted box that counts as an object of an
            unlabeled patch.
        guess_mode: The model that guesses targets. ``'batch'``: the current model; its batch
            norms use the statistics of the unlabeled patches and leave the running statistics
            unchanged, as in MixMatch. ``'eval'``: the current model in evaluation mode, whose
            running statistics are inaccurate in the first iterations. ``'ema'``: the averaged
            model of a ``TeacherEMAHook`` in evaluation mode.
        max_candidates: Largest number of boxes of an unlabeled patch that enter the suppression,
            under each symmetry and in total; the best are taken.
        max_objects: Largest number of objects of an unlabeled patch after the suppression.
        name: Name in the logs.
        **kwargs: Arguments of :class:`JointObjective`. ``active_thr`` has no effect.

    Raises:
        InputError: An argument is invalid, or there is no averaged model.

    Source: FocalMix (Wang et al., 2020), sections 3.1 and 3.2.
    """

    def __init__(
        self,
        num_guesses: int = 4,
        temperature: float = 0.7,
        object_score_thr: float = 0.8,
        guess_mode: str = "batch",
        max_candidates: int = 1000,
        max_objects: int = 32,
        name: str = "focal_mix",
        **kwargs,
    ) -> None:
        super().__init__(name=name, **kwargs)
        self.require(1 <= num_guesses <= 48, f"num_guesses={num_guesses}; expected 1 to 48")
        self.require(temperature > 0, f"temperature={temperature}; expected a positive number")
        self.require(
            guess_mode in _GUESS_MODES,
            f"guess_mode={guess_mode!r}; expected one of {', '.join(_GUESS_MODES)}",
        )
        self.require(
            min(max_candidates, max_objects) >= 1,
            f"max_candidates={max_candidates} and max_objects={max_objects}; expected at least 1",
        )
        self.num_guesses = num_guesses
        self.temperature = temperature
        self.object_score_thr = object_score_thr
        self.guess_mode = guess_mode
        self.max_candidates = max_candidates
        self.max_objects = max_objects
        self.needs_teacher = guess_mode == "ema"

    def guess(self, context: ObjectiveContext) -> GuessedTargets:
        """Guess sharpened targets and objects."""
        student, teacher = context.student.module, context.teacher
        model = student
        if self.guess_mode == "ema":
            if teacher is None:
                raise InputError(
                    "FocalMixObjective: guess_mode='ema' without an averaged model; expected a "
                    "TeacherEMAHook in custom_hooks"
                )
            model = teacher.module
        with seeded(context.generator):
            symmetries = draw_symmetries(self.num_guesses)
        average = self.average(model, context.unlabeled, symmetries)
        self.check_targets(average.scores.isfinite(), context)
        return GuessedTargets(sharpen(average.scores, self.temperature), average.objects)

    def average(
        self, model: FocalMix, patches: Tensor, symmetries: Sequence[CubeSymmetry]
    ) -> GuessedTargets:
        """Average the predictions of a detector over symmetries (:func:`guess_targets`)."""
        return guess_targets(
            model,
            patches,
            model.bbox_head.get_anchors(patches.shape[2:], patches.device),
            symmetries,
            object_score_thr=self.object_score_thr,
            nms_iou_thr=model.test_cfg["nms"]["iou_threshold"],
            max_candidates=self.max_candidates,
            max_objects=self.max_objects,
            batch_statistics=self.guess_mode == "batch",
        )

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the classification loss of the mixed unlabeled patches."""
        joint, head = self.joint_pass(context), context.student.module.bbox_head
        losses = head.loss_cls(joint.logits, joint.targets, reduction_override="none")
        scores = joint.logits.sigmoid()
        return AnchorTerms(losses, scores, joint.targets, joint.used, joint.avg_factor)

    def __call__(self, context: ObjectiveContext) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the loss and what to log.

        Returns:
            As for :class:`UnsupervisedObjective`, and ``guessed_pos``, the anchors with a target
            above 0.5 per patch; ``target_entropy``, the mean over all anchors in nats; and
            ``guessed_objects`` per patch; all before the transforms.
        """
        losses, logs = super().__call__(context)
        guessed = self.joint_pass(context).guessed
        scores = guessed.scores
        finite = scores.isfinite()
        # In the mixture, targets that are not finite are unused.
        logs[f"{self.name}_nonfinite"] = 1 - finite.float().mean()
        logs["guessed_pos"] = (scores > 0.5).sum().float() / len(scores)
        logs["target_entropy"] = binary_entropy(scores[finite]).mean()
        logs["guessed_objects"] = scores.new_tensor(sum(map(len, guessed.objects)) / len(scores))
        return losses, logs
