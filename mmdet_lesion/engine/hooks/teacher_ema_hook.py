"""mmengine's EMA of a model's weights, made fit to teach and to resume."""

from typing import Optional

from mmdet.registry import HOOKS
from mmengine.hooks import EMAHook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu


@HOOKS.register_module()
class TeacherEMAHook(EMAHook):
    """An ``EMAHook`` whose average is the student's equal at the start and predicts in eval mode.

    The average steps with the optimiser under gradient accumulation, an exception during
    validation does not leave the two models swapped, and checkpoints hold CPU tensors. The teacher
    is what is validated and saved as ``state_dict``; the student is in ``ema_state_dict``. A model
    with a method ``set_teacher`` is given the averaged model before training.

    Args:
        momentum: the student's weight in the average; the paper's 0.999 is ``0.001`` here.
        ema_type: a model of mmengine's registry that averages.
        **kwargs: further arguments of ``EMAHook`` and of the averaged model.
    """

    def __init__(
        self, momentum: float = 0.001, ema_type: str = "ExponentialMovingAverage", **kwargs
    ) -> None:
        super().__init__(ema_type=ema_type, momentum=momentum, **kwargs)
        self._restored = False
        self._swapped = False

    def before_train(self, runner: Runner) -> None:
        """Make the teacher the student's equal, unless a checkpoint brought it."""
        super().before_train(runner)
        self.ema_model.eval()
        if not self._restored:
            # mmengine copies the model before its weights are initialised, and again at the first
            # update; the copy made here is that one.
            self.ema_model.module.load_state_dict(self.src_model.state_dict())
            self.ema_model.steps.fill_(1)
        if hasattr(self.src_model, "set_teacher"):
            self.src_model.set_teacher(self.ema_model.module)

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Optional[dict] = None
    ) -> None:
        """Undo a swap that an exception during validation has left."""
        self._unswap()

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Optional[dict] = None,
        outputs: Optional[dict] = None,
    ) -> None:
        """Average where the optimiser stepped."""
        if runner.optim_wrapper.should_update():
            super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def before_val_epoch(self, runner: Runner) -> None:
        """Validate the teacher: its weights trade places with the student's."""
        self._unswap()
        super().before_val_epoch(runner)
        self._swapped = True

    def after_val_epoch(self, runner: Runner, metrics: Optional[dict] = None) -> None:
        """Put the student's weights back."""
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
        """Take the teacher from the checkpoint when resuming."""
        self._restored = runner._resume and "ema_state_dict" in checkpoint
        if "state_dict" not in checkpoint:
            # Bare weights to begin with, as mmengine accepts them.
            checkpoint = {"state_dict": checkpoint}
        super().after_load_checkpoint(runner, checkpoint)
