"""Checks and checkpoints of the objectives for unlabeled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from ...models.semi_supervised.objectives import UnsupervisedObjective


@HOOKS.register_module()
class ObjectivesHook(Hook):
    """Prepare the objectives of ``model.unsupervised``, and keep their state in checkpoints.

    Before training, each objective checks that it fits the training. A checkpoint contains the
    states by the objectives' names as ``objectives``. Models without objectives are left alone.

    Raises:
        InputError: An objective does not fit the training, for example a ramp is longer than it.
    """

    def before_train(self, runner: Runner) -> None:
        """Check and prepare the objectives."""
        for objective in _objectives(runner):
            objective.before_train(runner.max_iters, Path(runner.work_dir))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the states of the objectives."""
        if objectives := _objectives(runner):
            checkpoint["objectives"] = {one.name: one.state_dict() for one in objectives}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore the states if a training is resumed."""
        if runner._resume:
            states = checkpoint.get("objectives", {})
            for objective in _objectives(runner):
                objective.load_state_dict(states.get(objective.name, {}))


def _objectives(runner: Runner) -> Sequence[UnsupervisedObjective]:
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    return getattr(model, "unsupervised", ())
