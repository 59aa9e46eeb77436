"""Find a scheduler that lowers the learning rate, by running all of them on a copy."""

import copy
from types import SimpleNamespace
from typing import Optional, Sequence, Union

from mmengine.optim import _ParamScheduler
from mmengine.optim.scheduler import ReduceOnPlateauParamScheduler

Schedulers = Union[Sequence[_ParamScheduler], dict[str, Sequence[_ParamScheduler]], None]


def find_lr_decay(schedulers: Schedulers, max_iters: int, max_epochs: int) -> Optional[str]:
    """Name the first scheduler that ever lowers the learning rate of a parameter group.

    Each scheduler is stepped alone through the whole training on copies of the optimiser's groups,
    so that any kind of scheduler, a user's own included, is judged by what it does; a resumed run
    is judged from its first step as well. A warm-up only raises the rate and is no decay.

    Args:
        schedulers: the runner's ``param_schedulers``.
        max_iters: iterations of the whole training.
        max_epochs: epochs of the whole training.

    Returns:
        ``"MultiStepLR lowers the learning rate from 0.02 to 0.002 at iteration 60000"``, or None.
    """
    for scheduler in _flatten(schedulers):
        if getattr(scheduler, "param_name", "lr") != "lr":
            continue
        name = type(scheduler).__name__
        if isinstance(scheduler, ReduceOnPlateauParamScheduler):
            return f"{name} lowers the learning rate when a metric stalls"
        unit, end = ("epoch", max_epochs) if scheduler.by_epoch else ("iteration", max_iters)
        ghost = copy.copy(scheduler)
        groups = [
            {**{key: group[key] for key in group if key != "params"}, "lr": base}
            for group, base in zip(scheduler.optimizer.param_groups, scheduler.base_values)
        ]
        ghost.optimizer = SimpleNamespace(**{**vars(scheduler.optimizer), "param_groups": groups})
        # As mmengine's constructor does it.
        ghost._global_step = ghost.last_step = -1
        ghost.step()
        before = _rates(ghost)
        while ghost._global_step < min(end, scheduler.end):
            ghost.step()
            after = _rates(ghost)
            for old, new in zip(before, after):
                # A relative margin: warm-ups accumulate rounding.
                if new < old * (1 - 1e-6):
                    return (
                        f"{name} lowers the learning rate from {old:g} to {new:g} at {unit} "
                        f"{ghost._global_step}"
                    )
            before = after
    return None


def _rates(scheduler: _ParamScheduler) -> list[float]:
    return [group["lr"] for group in scheduler.optimizer.param_groups]


def _flatten(schedulers: Schedulers) -> list[_ParamScheduler]:
    if isinstance(schedulers, dict):
        return [one for several in schedulers.values() for one in several]
    return list(schedulers or [])
