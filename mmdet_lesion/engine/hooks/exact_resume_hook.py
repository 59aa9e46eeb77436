"""What it takes for a resumed run to equal one that never stopped."""

from typing import Optional

import torch
from mmdet.registry import HOOKS
from mmengine.dist import broadcast, get_rank, is_distributed
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import InputError
from ..random import seed_generators


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Ties randomness to the iteration, and refuses checkpoints that do not belong to the run.

    - Python, numpy and torch are seeded before every iteration by (seed, process, iteration), so
      that no state has to be saved, and neither validating nor stopping changes what follows.
    - Batch norm's running statistics are process 0's on all processes, as in the checkpoint.
    - A checkpoint whose ``state_dict`` is a teacher cannot be resumed without its hook, and one of
      another model cannot be resumed or tested.

    Raises:
        InputError: the checkpoint is not this run's.
    """

    # Before a mean teacher mines and averages.
    priority = "ABOVE_NORMAL"

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that the checkpoint fits."""
        if not isinstance(checkpoint, dict):
            raise InputError(
                f"{_source(runner)} holds a {type(checkpoint).__name__}, expected the dict of a "
                "checkpoint"
            )
        training = isinstance(runner._train_loop, BaseLoop)
        _check_same_model(runner, checkpoint, strict=runner._resume or not training)
        if runner._resume and "ema_state_dict" in checkpoint and not _has(runner, EMAHook):
            raise InputError(
                f"{_source(runner)}: its state_dict is the averaged teacher, and going on "
                "without EMAHook or MeanTeacherMiningHook would train the teacher as the student; "
                "resume with the config that wrote it, or load its weights by load_from without "
                "--resume"
            )

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
    ) -> None:
        """Seed this iteration by (seed, process, iteration)."""
        seed_generators("iteration", (runner.seed, get_rank(), runner.iter), cuda=True)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Make the running statistics of batch norm process 0's."""
        if is_distributed():
            broadcast_running_statistics(runner.model)


def broadcast_running_statistics(model: nn.Module) -> None:
    """Overwrite the running statistics of training batch norms with process 0's, in one message."""
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


def _source(runner: Runner) -> str:
    return runner._load_from or find_latest_checkpoint(runner.work_dir)


def _has(runner: Runner, kind: type) -> bool:
    return any(isinstance(hook, kind) for hook in runner.hooks)


def _check_same_model(runner: Runner, checkpoint: dict, strict: bool) -> None:
    """Compare names and shapes; without ``strict`` only nothing in common is an error."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    ours = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = checkpoint.get("state_dict", checkpoint)
    theirs = {name: tuple(value.shape) for name, value in state.items() if torch.is_tensor(value)}
    wrong = sorted(name for name, shape in ours.items() if theirs.get(name) != shape)
    if not wrong or (not strict and len(wrong) < len(ours)):
        return
    example = wrong[0]
    found = f"has shape {theirs[example]}" if example in theirs else "is not in it"
    raise InputError(
        f"{_source(runner)}: a checkpoint of another model: {len(wrong)} of the config's "
        f"{len(ours)} weights do not fit (the first, {example}, {found}; expected "
        f"{ours[example]})"
    )
