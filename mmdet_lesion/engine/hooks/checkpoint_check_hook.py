"""Check that a loaded checkpoint belongs to the model and the hooks of the run."""

from __future__ import annotations

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint

from ...errors import InputError


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Refuse checkpoints that do not belong to the run.

    A run cannot be resumed from, or tested with, a checkpoint of another model. A checkpoint whose
    ``state_dict`` is an averaged teacher cannot be resumed without an ``EMAHook``.

    Raises:
        InputError: The checkpoint does not belong to the run.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint."""
        if not isinstance(checkpoint, dict):
            raise InputError(
                f"{_source(runner)} holds a {type(checkpoint).__name__}, expected the dict of a "
                "checkpoint"
            )
        training = isinstance(runner._train_loop, BaseLoop)
        _check_weights(runner, checkpoint, strict=runner._resume or not training)
        has_ema = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        if runner._resume and "ema_state_dict" in checkpoint and not has_ema:
            raise InputError(
                f"{_source(runner)}: its state_dict is the averaged teacher, and resuming without "
                "EMAHook or MeanTeacherMiningHook would train the teacher as the student; resume "
                "with the config that wrote it, or load its weights by load_from without --resume"
            )


def _source(runner: Runner) -> str:
    return runner._load_from or find_latest_checkpoint(runner.work_dir)


def _check_weights(runner: Runner, checkpoint: dict, strict: bool) -> None:
    """Compare names and shapes; without ``strict`` one weight that fits is enough."""
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    state = checkpoint.get("state_dict", checkpoint)
    loaded = {name: tuple(value.shape) for name, value in state.items() if torch.is_tensor(value)}
    wrong = sorted(name for name, shape in expected.items() if loaded.get(name) != shape)
    if not wrong or (not strict and len(wrong) < len(expected)):
        return
    example = wrong[0]
    found = f"has shape {loaded[example]}" if example in loaded else "is missing"
    raise InputError(
        f"{_source(runner)}: a checkpoint of another model: {len(wrong)} of the config's "
        f"{len(expected)} weights do not fit (the first, {example}, {found}; expected "
        f"{expected[example]})"
    )
