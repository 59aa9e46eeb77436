"""Base class of the objectives for unlabeled patches."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.models.losses.utils import weight_reduce_loss
from mmdet.registry import TRANSFORMS
from torch import Tensor

from ....errors import InputError
from ..target_guess import binary_entropy
from .context import ObjectiveContext
from .functional import masked_mean

__all__ = ["STRONG_VIEW", "AnchorTerms", "UnsupervisedObjective", "ramp_up"]

#: Config of the intensity transform of a strong view.
STRONG_VIEW = dict(type="RandomIntensity")


def ramp_up(iteration: int, ramp_iters: int) -> float:
    """Compute ``exp(-5 (1 - t / T)²)`` during a ramp of T iterations, and 1 afterwards.

    Source: Laine and Aila (2017), section 2.1 and appendix A.
    """
    if iteration >= ramp_iters:
        return 1.0
    return math.exp(-5 * (1 - iteration / ramp_iters) ** 2)


@dataclass
class AnchorTerms:
    """Loss terms of an objective, anchor by anchor.

    Args:
        losses: Losses with gradient, shape (N, A). Where a target is not finite, their gradient
            has to be finite nevertheless, as that of :func:`square_error`, :func:`cross_entropy`
            and :func:`kl_divergence` is: it is multiplied by 0.
        scores: Probabilities of the pass that is trained on, shape (N, A).
        targets: Target probabilities, shape (N, A).
        used: Anchors that the objective selects, shape (N, A), bool; by default all.
        avg_factor: Divisor of the sum over ``used``, to which mmdet adds 1e-7. By default the loss
            is the mean over the active anchors among them.
    """

    losses: Tensor
    scores: Tensor
    targets: Tensor
    used: Tensor | None = None
    avg_factor: Tensor | float | None = None


class UnsupervisedObjective(ABC):
    """Objective that learns from unlabeled patches.

    The loss is a mean over *active* anchors: those whose probability, predicted or target, exceeds
    ``active_thr``. Of the 10^5 anchors of a patch a handful lie on a nodule; a mean over all would
    divide their gradient by 10^5. Anchors that are background in both views have next to no loss
    of their own. The mask has no gradient.

    Anchors whose target is NaN or infinite, from a teacher that diverges or from a patch, have no
    loss, and their share is logged. If no target is finite, or a prediction that is trained on is
    not, the training ends: the gradient of the weights would be NaN. With float16 autocast it goes
    on, since the loss scaling skips such steps.

    Args:
        weight: w_max, the weight of the loss after the ramp, not negative.
        ramp_iters: T, the iterations in which the weight rises (:func:`ramp_up`); 0 for none.
        active_thr: Probability above which an anchor is active. A negative number makes all
            anchors active, as in the papers on classification.
        augment: Config of a batch transform of intensities for the strong view, e.g.
            ``dict(type='RandomIntensity')``, or None.
        name: Name in the logs, by default that of the class in snake case. It must not contain
            "loss", which marks what is added to the total loss, and is not ``cls`` or ``bbox``,
            which are the supervised losses.

    Raises:
        InputError: An argument is invalid, or predictions or all targets are not finite.
    """

    #: Whether the objective needs the averaged model of a ``TeacherEMAHook``.
    needs_teacher = False

    def __init__(
        self,
        weight: float = 1.0,
        ramp_iters: int = 0,
        active_thr: float = 0.05,
        augment: dict | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        self.require(
            "loss" not in self.name and self.name not in ("cls", "bbox"),
            f"name={self.name!r}; expected a name without 'loss' and other than 'cls' and 'bbox'",
        )
        self.require(0 <= weight < math.inf, f"weight={weight}; expected 0 or a positive number")
        self.require(ramp_iters >= 0, f"ramp_iters={ramp_iters}; expected 0 or more iterations")
        self.require(active_thr < 1, f"active_thr={active_thr}; expected a number below 1")
        self.weight = weight
        self.ramp_iters = ramp_iters
        self.active_thr = active_thr
        self.augment = None if augment is None else TRANSFORMS.build(augment)

    def require(self, condition: bool, message: str) -> None:
        """Raise InputError with the class name and a message unless a condition holds."""
        if not condition:
            raise InputError(f"{type(self).__name__}: {message}")

    @abstractmethod
    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the loss terms of the anchors. Targets must not have a gradient."""

    def __call__(self, context: ObjectiveContext) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Compute the weighted loss of an iteration and what to log.

        Returns:
            ``loss_<name>``, with gradient; and, without, ``<name>_weight``, ``<name>_used`` (the
            share of anchors in the loss), ``<name>_nonfinite`` (the share of anchors whose target
            is not finite), and the means over the anchors in the loss of the targets' confidence
            ``max(p, 1 - p)``, ``<name>_confidence``, and of their entropy in nats,
            ``<name>_entropy``.

        Raises:
            InputError: A prediction is not finite, or no target is, without float16 autocast; or as
                for :meth:`check_training`.
        """
        self.check_training(context.total_iterations)
        weight = self.weight * ramp_up(context.iteration, self.ramp_iters)
        terms = self.compute(context)
        scores, targets = terms.scores.detach(), terms.targets.detach()
        finite = targets.isfinite()
        mask = finite if terms.used is None else terms.used & finite
        if terms.avg_factor is None:
            mask = mask & (torch.maximum(scores, targets) > self.active_thr)
            loss = masked_mean(terms.losses, mask)
        else:
            losses = torch.where(mask, terms.losses, 0.0)
            loss = weight_reduce_loss(losses, avg_factor=terms.avg_factor)
        self._require_finite(
            scores.isfinite().all() & loss.isfinite(),
            f"predictions on unlabeled patches are NaN or infinite in iteration "
            f"{context.iteration}; expected finite ones: the training has diverged",
        )
        self.check_targets(finite, context)
        count = mask.sum().clamp(min=1)
        logs = {
            "weight": loss.new_tensor(weight),
            "used": mask.to(loss.dtype).mean(),
            "nonfinite": 1 - finite.to(loss.dtype).mean(),
            "confidence": torch.maximum(targets, 1 - targets)[mask].sum() / count,
            "entropy": binary_entropy(targets[mask]).sum() / count,
        }
        return (
            {f"loss_{self.name}": weight * loss},
            {f"{self.name}_{key}": value for key, value in logs.items()},
        )

    def _require_finite(self, condition: Tensor, message: str) -> None:
        """Raise InputError unless a condition holds, or the step would be skipped anyway.

        In float16, values overflow now and then, and the loss scaling skips the step whose gradient
        is not finite.
        """
        device = condition.device.type
        scaled = torch.is_autocast_enabled(device) and (
            torch.get_autocast_dtype(device) == torch.float16
        )
        if not scaled:
            self.require(bool(condition), message)

    def check_targets(self, finite: Tensor, context: ObjectiveContext) -> None:
        """Raise InputError unless some target is finite, but not with float16 autocast.

        Args:
            finite: Whether each target is finite, any shape, bool.
            context: Inputs of the iteration.
        """
        self._require_finite(
            finite.any(),
            f"none of the targets of unlabeled patches is finite in iteration {context.iteration}; "
            "expected probabilities: the model that predicts them has diverged",
        )

    def check_training(self, total_iterations: int) -> None:
        """Raise InputError if the ramp is longer than the training."""
        self.require(
            self.ramp_iters <= total_iterations,
            f"ramp_iters={self.ramp_iters} in a training of {total_iterations} iterations; "
            "expected at most as many",
        )

    def before_train(self, total_iterations: int, work_dir: Path) -> None:
        """Check the training and prepare for it; :class:`ObjectivesHook` calls this.

        Args:
            total_iterations: Number of iterations of the training.
            work_dir: Folder of the training's files.

        Raises:
            InputError: The objective does not fit the training.
        """
        self.check_training(total_iterations)

    def supervised_mask(self, logits: Tensor, targets: Tensor, context: ObjectiveContext) -> Tensor:
        """Return which anchors of the labeled patches have a supervised loss, by default all.

        Args:
            logits: Logits of the labeled patches, shape (M, A).
            targets: Their targets of 0 and 1, shape (M, A).
            context: Inputs of the iteration.
        """
        return torch.ones_like(targets, dtype=torch.bool)

    def strong_view(self, patches: Tensor, context: ObjectiveContext) -> Tensor:
        """Apply the intensity transform, which leaves the anchors where they are."""
        if self.augment is None:
            return patches
        batch = self.augment(dict(inputs=patches, generator=context.generator))
        return batch["inputs"]

    def state_dict(self) -> dict:
        """Return what a checkpoint has to contain to resume; by default nothing."""
        return {}

    def load_state_dict(self, state: dict) -> None:
        """Restore what :meth:`state_dict` returned."""
        self.require(not state, "the checkpoint has a state of another objective; expected none")
