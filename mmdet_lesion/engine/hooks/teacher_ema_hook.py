"""Exponential moving average of a model, usable as a teacher and resumable."""

from __future__ import annotations

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu

from ...errors import InputError


@HOOKS.register_module()
class TeacherEMAHook(EMAHook):
    """``EMAHook`` whose averaged model is a teacher that predicts in evaluation mode.

    The EMA model is initialized from the student's weights and updated when the optimizer steps,
    also with gradient accumulation. An exception during validation does not leave the two models
    swapped, and checkpoints hold CPU tensors. The teacher is validated and saved as
    ``state_dict``; the student is saved as ``ema_state_dict``. If the model has a method
    ``set_teacher``, it is called with the EMA model before training.

    Args:
        momentum: Weight of the student in the average; the paper's 0.999 is ``0.001`` here.
        ema_type: Type of the averaged model in mmengine's registry.
        **kwargs: Further arguments of ``EMAHook`` and of the averaged model.

    Raises:
        InputError: ``momentum`` is out of range.
    """

    def __init__(
        self, momentum: float = 0.001, ema_type: str = "ExponentialMovingAverage", **kwargs
    ) -> None:
        if not 0 < momentum <= 1:
            raise InputError(
                f"{type(self).__name__}: momentum={momentum}; expected a number above 0, at most 1"
            )
        super().__init__(ema_type=ema_type, momentum=momentum, **kwargs)
        self._restored = False
        self._swapped = False

    def before_train(self, runner: Runner) -> None:
        """Initialize the teacher from the student, unless a checkpoint was resumed."""
        super().before_train(runner)
        self.ema_model.eval()
        if not self._restored:
            # mmengine copies the model before its weights are initialized, and again at the first
            # update; the copy made here is that one.
            self.ema_model.module.load_state_dict(self.src_model.state_dict())
            self.ema_model.steps.fill_(1)
        if hasattr(self.src_model, "set_teacher"):
            self.src_model.set_teacher(self.ema_model.module)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        """Undo the swap that is left after an exception during validation."""
        self._unswap()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Update the average if the optimizer stepped."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_val_epoch(self, runner: Runner) -> None:
        """Swap the weights so that the teacher is validated."""
        self._unswap()
        super().before_val_epoch(runner)
        self._swapped = True

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        """Swap the weights back."""
        self._unswap()

    def _unswap(self) -> None:
        if self._swapped:
            self._swap_ema_parameters()
            self._swapped = False

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the teacher as ``state_dict`` and the student as ``ema_state_dict``, on the CPU."""
        super().before_save_checkpoint(runner, checkpoint)
        for key in ("state_dict", "ema_state_dict"):
            checkpoint[key] = weights_to_cpu(checkpoint[key])

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Load the teacher from the checkpoint when resuming."""
        self._restored = runner._resume and "ema_state_dict" in checkpoint
        if "state_dict" not in checkpoint:
            # A checkpoint of weights only, as mmengine accepts it.
            checkpoint = {"state_dict": checkpoint}
        super().after_load_checkpoint(runner, checkpoint)
