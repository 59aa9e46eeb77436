"""Building of the objectives of a config."""

from __future__ import annotations

from collections.abc import Sequence

from mmdet.registry import TASK_UTILS

from ....errors import InputError
from .base import UnsupervisedObjective

__all__ = ["build_objectives"]


def build_objectives(cfgs: Sequence[dict]) -> list[UnsupervisedObjective]:
    """Build objectives from their configs, e.g. ``[dict(type='FixMatch', weight=1.0)]``.

    Args:
        cfgs: Configs of registered subclasses of :class:`UnsupervisedObjective`.

    Raises:
        InputError: A type is unknown, an argument invalid, or two objectives have the same name.
    """
    objectives: list[UnsupervisedObjective] = []
    for cfg in cfgs:
        kind = cfg.get("type")
        found = TASK_UTILS.get(kind) if isinstance(kind, str) else kind
        if not (isinstance(found, type) and issubclass(found, UnsupervisedObjective)):
            raise InputError(
                f"unsupervised: there is no objective {kind!r}; expected one of "
                f"{', '.join(sorted(_names()))}"
            )
        try:
            objective = TASK_UTILS.build(cfg)
        except TypeError as error:
            raise InputError(f"unsupervised: {error}") from None
        if objective.name in [other.name for other in objectives]:
            raise InputError(
                f"unsupervised: two objectives have the name {objective.name!r}; expected another "
                "name=... for one of them"
            )
        objectives.append(objective)
    return objectives


def _names() -> list[str]:
    """Return the names of all registered objectives."""
    return [
        name
        for name, found in TASK_UTILS.module_dict.items()
        if isinstance(found, type) and issubclass(found, UnsupervisedObjective)
    ]
