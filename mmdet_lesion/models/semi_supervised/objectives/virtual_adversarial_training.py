"""Virtual adversarial training."""

from __future__ import annotations

import torch
from mmdet.registry import TASK_UTILS

from .adversarial import adversarial_direction, intensity_scale
from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .functional import kl_divergence

__all__ = ["VirtualAdversarialTraining"]


@TASK_UTILS.register_module()
class VirtualAdversarialTraining(UnsupervisedObjective):
    """Consistency with the perturbation of the patch that changes the prediction most.

    Loss: ``KL(p(x) || p(x + r))`` with ``p(x)`` constant. Normalizer: the number of active anchors.
    ``r`` has the direction of the gradient of the summed KL of the active anchors at a small random
    perturbation, and the norm ``epsilon`` times the standard deviation of the patch's intensities.
    The gradient is concentrated where nodules are, so the norm does not grow with the size of the
    patch: 5 standard deviations are 0.2 in each of the 500 voxels of a nodule. Only the pass of
    ``x + r`` updates the running statistics of batch norms.

    Args:
        xi: Norm of the small perturbation, in standard deviations. A random direction spreads over
            all voxels of the patch, so that in float32 a much smaller one is lost to rounding.
        epsilon: Norm of the adversarial perturbation, in standard deviations.
        power_iterations: Number of power iterations.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: An argument is invalid.

    Source: Miyato et al. (2017), section 3 and algorithm 1.
    """

    def __init__(
        self, xi: float = 1.0, epsilon: float = 5.0, power_iterations: int = 1, **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.require(
            xi > 0 and epsilon > 0, f"xi={xi} and epsilon={epsilon}; expected positive numbers"
        )
        self.require(
            power_iterations >= 1, f"power_iterations={power_iterations}; expected at least 1"
        )
        self.xi = xi
        self.epsilon = epsilon
        self.power_iterations = power_iterations

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compute the divergence at the adversarial perturbation."""
        patches, student = context.unlabeled, context.student
        # In half precision the finite difference and its gradient would be rounded to zero.
        with torch.autocast(patches.device.type, enabled=False):
            targets = student.targets(patches)
            direction = adversarial_direction(
                student,
                patches,
                targets,
                targets > self.active_thr,
                xi=self.xi,
                power_iterations=self.power_iterations,
                generator=context.generator,
            )
        logits = student.logits(patches + self.epsilon * intensity_scale(patches) * direction)
        return AnchorTerms(kl_divergence(targets, logits), logits.sigmoid(), targets)
