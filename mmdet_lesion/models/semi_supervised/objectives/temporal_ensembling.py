"""Temporal ensembling."""

from __future__ import annotations

from pathlib import Path

import torch
from mmdet.registry import TASK_UTILS
from mmengine.dist import get_world_size

from ....errors import InputError
from .base import AnchorTerms, UnsupervisedObjective
from .context import ObjectiveContext
from .ensemble_store import EnsembleStore, check_folder
from .functional import draw_symmetry, move_anchors, square_error

__all__ = ["TemporalEnsembling"]


@TASK_UTILS.register_module()
class TemporalEnsembling(UnsupervisedObjective):
    """Consistency with the average of the predictions of earlier visits to the same anchors.

    For every anchor of a scan an average ``Z = alpha Z + (1 - alpha) p`` is kept, updated at every
    visit. Loss: ``(p - Z / (1 - alpha^t))²`` after t visits; anchors without a visit are not used.
    Normalizer: the number of active anchors. Each patch is predicted once per iteration, in the
    pass that is trained on. Patches of a scan have to start at multiples of the largest stride
    (``align`` of :class:`LoadPatch`), so that they share anchors.

    Args:
        alpha: Weight of the old average, 0 to less than 1.
        folder: Folder of the averages (:class:`EnsembleStore`), relative to the work folder of the
            training. By default they are in memory and in checkpoints, which needs a training with
            one process. Averages of a checkpoint are written to a folder that is added later.
        **kwargs: Arguments of :class:`UnsupervisedObjective`.

    Raises:
        InputError: An argument is invalid, a patch has no origin on the anchors of its scan,
            several processes keep averages in memory, or the averages that a training continues
            with are not in the folder.

    Source: Laine and Aila (2017), algorithm 2, there with one visit of each image per epoch.
    """

    def __init__(self, alpha: float = 0.6, folder: str | None = None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.require(0 <= alpha < 1, f"alpha={alpha}; expected at least 0 and less than 1")
        self.alpha = alpha
        self.folder = None if folder is None else Path(folder)
        self.store: EnsembleStore | None = None
        self._restored: dict = {}

    def before_train(self, total_iterations: int, work_dir: Path) -> None:
        """Check the training and the folder of the averages."""
        super().before_train(total_iterations, work_dir)
        self.require(
            self.folder is not None or get_world_size() == 1,
            f"{get_world_size()} processes keep averages in memory, and checkpoints would contain "
            "those of the first only; expected folder=...",
        )
        if self.folder is not None:
            self.folder = (work_dir / self.folder).resolve()
        if self.store is None:
            check_folder(self.folder, self._restored)

    def compute(self, context: ObjectiveContext) -> AnchorTerms:
        """Compare with the averages, and update them."""
        patches, strides, size = context.unlabeled, context.strides, context.unlabeled.shape[2:]
        if context.origins is None or len(context.origins) != len(patches):
            raise InputError(
                "TemporalEnsembling: unlabeled patches without a position in a scan, or padded; "
                "expected LoadPatch and patches of one size, divisible by the largest stride: "
                "cubic ones, or no rotation"
            )
        store = self._open(context)
        scores = context.student.logits(
            self.strong_view(patches, context), draw_symmetry(context.generator)
        ).sigmoid()
        targets, used = torch.zeros_like(scores), torch.zeros_like(scores, dtype=torch.bool)
        # The pipeline's symmetry moved the crop; the store has the anchors of the scan.
        moves = [(origin, origin.symmetry.inverse.size(size)) for origin in context.origins]
        for index, (origin, crop) in enumerate(moves):
            average, visits = store.read(origin, crop)
            average = move_anchors(average, origin.symmetry, crop, strides)
            visits = move_anchors(visits, origin.symmetry, crop, strides)
            targets[index], used[index] = average.to(targets), (visits > 0).to(used.device)
        for index, (origin, crop) in enumerate(moves):
            back = move_anchors(scores[index].detach(), origin.symmetry.inverse, size, strides)
            store.update(origin, crop, back.cpu())
        return AnchorTerms(square_error(scores, targets), scores, targets, used)

    def _open(self, context: ObjectiveContext) -> EnsembleStore:
        if self.store is None:
            self.store = EnsembleStore(self.alpha, context.strides, self.folder)
            self.store.load_state_dict(self._restored)
            self._restored = {}
        return self.store

    def state_dict(self) -> dict:
        """Return the folder of the averages, or the averages in memory."""
        return self._restored if self.store is None else self.store.state_dict()

    def load_state_dict(self, state: dict) -> None:
        """Continue with the averages of :meth:`state_dict`, or with those on disk."""
        self.store, self._restored = None, state
