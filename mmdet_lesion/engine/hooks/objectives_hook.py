"""Checks and checkpoints of the objectives for unlabeled data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch.utils.data import Dataset

from ...errors import InputError
from ...models.semi_supervised.objectives import UnsupervisedObjective


@HOOKS.register_module()
class ObjectivesHook(Hook):
    """Prepare the objectives of ``model.unsupervised``, and keep their state in checkpoints.

    Before training, each objective checks that it fits the training, and the data are checked to
    have labeled and unlabeled scans. A checkpoint contains the states by the objectives' names as
    ``objectives``. Models without objectives are left alone.

    Raises:
        InputError: An objective does not fit the training, for example a ramp is longer than it,
            or there are no labeled or no unlabeled scans.
    """

    def before_train(self, runner: Runner) -> None:
        """Check the data, and check and prepare the objectives."""
        objectives = _objectives(runner)
        if objectives:
            _check_scans(runner.train_dataloader.dataset, [one.name for one in objectives])
        for objective in objectives:
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


def _check_scans(dataset: Dataset, names: Sequence[str]) -> None:
    """Raise if all scans of a dataset are labeled, or none; other datasets are not checked."""
    if not hasattr(dataset, "get_data_info"):
        return
    # The first scans of concatenated datasets usually decide.
    starts = [start for start in getattr(dataset, "cumulative_sizes", ()) if start < len(dataset)]
    found = set()
    for index in (*starts, *range(len(dataset))):
        found.add(bool(dataset.get_data_info(index).get("labeled", True)))
        if len(found) == 2:
            return
    raise InputError(
        f"train_dataloader.dataset has no {'unlabeled' if True in found else 'labeled'} scans; "
        f"expected labeled and unlabeled ones for model.unsupervised ({', '.join(names)})"
    )
