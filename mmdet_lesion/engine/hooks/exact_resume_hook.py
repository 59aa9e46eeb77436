"""What mmengine's checkpoints lack for a resumed run to equal one that never stopped."""

import random
from typing import Any, Optional

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import all_gather_object, broadcast, get_rank, get_world_size, is_distributed
from mmengine.hooks import EMAHook, Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, Runner, find_latest_checkpoint
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ...errors import InputError

KEY = "random_state"


@HOOKS.register_module()
class ExactResumeHook(Hook):
    """Saves and restores random states, and refuses checkpoints that do not belong to the run.

    - The states of python, numpy and torch of every process go into the checkpoint.
    - Validation leaves them as they were, so that the training does not depend on how often it is
      validated.
    - Batch norm's running statistics are process 0's on all processes, as in the checkpoint.
    - A checkpoint whose ``state_dict`` is a teacher cannot be resumed without its hook, and one of
      another model cannot be resumed or tested.

    Raises:
        InputError: the checkpoint is not this run's.
    """

    # Before EMAHook averages, and after it has swapped back from validation.
    priority = "ABOVE_NORMAL"

    def __init__(self) -> None:
        self._to_restore: Optional[dict[str, Any]] = None
        self._before_val: Optional[dict[str, Any]] = None

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Check that the checkpoint fits, and keep its random states until training begins."""
        training = isinstance(runner._train_loop, BaseLoop)
        _check_same_model(runner, checkpoint, strict=runner._resume or not training)
        if not runner._resume:
            return
        if "ema_state_dict" in checkpoint and not _has(runner, EMAHook):
            raise InputError(
                f"{_source(runner)}: its state_dict is the averaged teacher, and going on "
                "without EMAHook or MeanTeacherMiningHook would train the teacher as the student; "
                "resume with the config that wrote it, or load its weights by load_from without "
                "--resume"
            )
        states: list[dict] = checkpoint.get(KEY, [])
        if len(states) == get_world_size():
            self._to_restore = states[get_rank()]
        else:
            runner.logger.warning(
                f"ExactResumeHook: the checkpoint holds the random states of {len(states)} "
                f"processes and this run has {get_world_size()}: it goes on, but not exactly as "
                "the run that stopped would have"
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Restore the random states last thing before the first iteration."""
        if self._to_restore is not None:
            restore_random_state(self._to_restore)
            self._to_restore = None

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

    def before_val(self, runner: Runner) -> None:
        """Remember the random states."""
        self._before_val = random_state()

    def after_val(self, runner: Runner) -> None:
        """Go on as if validation had not been."""
        if self._before_val is not None:
            restore_random_state(self._before_val)
            self._before_val = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Add the random states of all processes."""
        checkpoint[KEY] = all_gather_object(self._before_val or random_state())


def random_state() -> dict[str, Any]:
    """Return the states of python, numpy, torch and the current CUDA device.

    Only tensors, numbers and containers, which torch's safe loading accepts.
    """
    _, numpy_keys, *numpy_rest = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (torch.from_numpy(numpy_keys.astype(np.int64)), *numpy_rest),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Any]) -> None:
    """Undo what happened to the generators since :func:`random_state`."""
    random.setstate(state["python"])
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


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
