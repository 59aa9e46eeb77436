"""Random state and batch norm statistics as functions of the iteration, for exact resuming."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.dist import broadcast, get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..runner.resumable_loader import seed_generators


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Make a resumed run equal to a run without interruption.

    - Python, NumPy and torch are seeded before every iteration by (seed, rank, iteration), so that
      no random state has to be saved, and validation does not change what follows.
    - The running statistics of batch norms are those of process 0 on all processes, as in the
      checkpoint.

    :class:`ResumableIterBasedTrainLoop` and :class:`ResumableEpochBasedTrainLoop` register this
    hook.
    """

    # Before a mean teacher mines and averages.
    priority = "ABOVE_NORMAL"

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Seed the random generators for this iteration."""
        seed_generators("iteration", (runner.seed, get_rank(), runner.iter), cuda=True)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Broadcast the running statistics of batch norms from process 0."""
        if is_distributed():
            broadcast_running_statistics(runner.model)


def broadcast_running_statistics(model: nn.Module) -> None:
    """Broadcast the running statistics of batch norms in training mode, in one message."""
    statistics = [
        buffer
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.training and module.track_running_stats
        for buffer in (module.running_mean, module.running_var)
    ]
    if not statistics:
        return
    flat = torch.cat(statistics)
    broadcast(flat)
    for buffer, value in zip(statistics, flat.split([len(buffer) for buffer in statistics])):
        buffer.copy_(value)
