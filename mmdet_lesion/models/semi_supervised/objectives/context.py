"""What an objective gets: the models, the patches and the progress of the training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ....structures import CubeSymmetry
from ..target_guess import GuessedTargets, prediction_mode
from .functional import join_levels

__all__ = ["AnchorPredictor", "JointPass", "ObjectiveContext", "PatchOrigin"]

IDENTITY = CubeSymmetry()


@dataclass(frozen=True)
class AnchorPredictor:
    """Anchor logits of a model under symmetries, carried back to the anchors of the patch.

    Args:
        module: The model. A student is in training mode, an averaged teacher in evaluation mode.
        forward: Maps patches (N, 1, D, H, W) to the classification logits (N, 1, D, H, W) of each
            level, with the layers of ``module``.
    """

    module: nn.Module
    forward: Callable[[Tensor], Sequence[Tensor]]

    def logits(self, patches: Tensor, symmetry: CubeSymmetry = IDENTITY) -> Tensor:
        """Compute logits in a pass that is trained on, in the present mode of the model.

        Args:
            patches: Patches (N, 1, D, H, W).
            symmetry: Symmetry that is applied to the patches.

        Returns:
            Logits of the anchors of the patches before the symmetry, shape (N, A).
        """
        inverse = symmetry.inverse
        levels = self.forward(symmetry.apply(patches))
        return join_levels([inverse.apply(level).squeeze(1) for level in levels])

    def untracked_logits(
        self, patches: Tensor, symmetry: CubeSymmetry = IDENTITY, stochastic: bool = False
    ) -> Tensor:
        """Compute logits without changing the running statistics of batch norms.

        Batch norms in training mode use the statistics of the patches. The pass is differentiable,
        but activation checkpointing requires that the backward pass is run within
        :func:`untracked_statistics` as well.

        Args:
            patches: Patches (N, 1, D, H, W).
            symmetry: Symmetry that is applied to the patches.
            stochastic: Whether dropout stays active; otherwise it is off.

        Returns:
            Logits, shape (N, A).
        """
        with untracked_statistics(self.module, stochastic):
            return self.logits(patches, symmetry)

    @torch.no_grad()
    def targets(
        self, patches: Tensor, symmetry: CubeSymmetry = IDENTITY, stochastic: bool = False
    ) -> Tensor:
        """Predict probabilities (N, A) without gradient; see :meth:`untracked_logits`."""
        return self.untracked_logits(patches, symmetry, stochastic).sigmoid()


@contextmanager
def untracked_statistics(module: nn.Module, stochastic: bool = False) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged, and restore all modes on exit.

    Args:
        module: The model.
        stochastic: Whether modules other than batch norms keep their mode; otherwise see
            :func:`prediction_mode`.
    """
    modes = [(part, part.training) for part in module.modules()]
    with prediction_mode(module, batch_statistics=True):
        if stochastic:
            for part, training in modes:
                if not isinstance(part, _BatchNorm):
                    part.training = training
        yield


@dataclass(frozen=True)
class PatchOrigin:
    """Where a patch was cropped from its scan, for anchor values that are kept per scan.

    Args:
        scan: Name of the scan, unique in the data set.
        start: First voxel (z, y, x) of the crop in the scan, may be negative.
        scan_size: Size (D, H, W) of the scan in voxels.
        symmetry: Symmetry that was applied to the crop by the pipeline.
    """

    scan: str
    start: tuple[int, int, int]
    scan_size: tuple[int, int, int]
    symmetry: CubeSymmetry = field(default=IDENTITY)


@dataclass(frozen=True)
class JointPass:
    """The unlabeled patches in the pass of the labeled ones, after the batch transforms.

    Args:
        guessed: Targets before the transforms (:meth:`JointObjective.guess`).
        logits: Logits with gradient, shape (N, A).
        targets: Targets after the transforms, shape (N, A).
        used: Whether an anchor has a loss, shape (N, A), bool.
        avg_factor: Divisor of the sum of the losses.
    """

    guessed: GuessedTargets
    logits: Tensor
    targets: Tensor
    used: Tensor
    avg_factor: float


@dataclass
class ObjectiveContext:
    """Inputs of an objective in one iteration.

    Args:
        student: The model that is trained.
        unlabeled: Unlabeled patches (N, 1, D, H, W), edges divisible by the largest stride.
        strides: Stride of each level of anchors, one anchor per location.
        iteration: Number of iterations before this one.
        total_iterations: Number of iterations of the training.
        teacher: The averaged model, if there is one.
        origins: Origins of the N unlabeled patches, if known.
        labeled: Labeled patches (M, 1, D, H, W).
        labeled_targets: Their classification targets in 0..1, shape (M, A).
        labeled_used: Whether these have a loss, shape (M, A), bool.
        joint: The pass of labeled and unlabeled patches, if there is a :class:`JointObjective`;
            set after its :meth:`~JointObjective.guess`.
        generator: Source of all randomness except dropout; by default torch's global generator.
    """

    student: AnchorPredictor
    unlabeled: Tensor
    strides: Sequence[int]
    iteration: int
    total_iterations: int
    teacher: AnchorPredictor | None = None
    origins: Sequence[PatchOrigin] | None = None
    labeled: Tensor | None = None
    labeled_targets: Tensor | None = None
    labeled_used: Tensor | None = None
    joint: JointPass | None = None
    generator: torch.Generator | None = None
