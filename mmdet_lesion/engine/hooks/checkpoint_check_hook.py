"""Check that a loaded checkpoint belongs to the model and the hooks of the run."""

from __future__ import annotations

import os

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint

from ...errors import InputError
from ...models.checkpoint import check_archive, check_weights, get_weights


@HOOKS.register_module()
class CheckpointCheckHook(Hook):
    """Refuse checkpoints that do not belong to the run.

    A run cannot be resumed from, or tested with, a checkpoint of another model. A checkpoint whose
    ``state_dict`` is an averaged teacher cannot be resumed without an ``EMAHook``. For fine-tuning
    with ``load_from``, a single weight that fits is enough.

    Raises:
        InputError: The checkpoint does not belong to the run, is damaged, or its weights are not
            finite.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check the checkpoint."""
        source = runner._load_from or find_latest_checkpoint(runner.work_dir)
        if source is not None and os.path.isfile(source):
            check_archive(source)
        weights = get_weights(checkpoint, source)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        training = isinstance(runner._train_loop, BaseLoop)
        check_weights(model, weights, source, partial=training and not runner._resume)
        has_ema = any(isinstance(hook, EMAHook) for hook in runner.hooks)
        if runner._resume and "ema_state_dict" in checkpoint and not has_ema:
            raise InputError(
                f"{source}: its state_dict is the averaged teacher, and resuming without "
                "EMAHook or MeanTeacherMiningHook would train the teacher as the student; resume "
                "with the config that wrote it, or load its weights by load_from without --resume"
            )
