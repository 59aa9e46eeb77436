"""Checks of a config that find what would otherwise fail after minutes, or not at all."""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmdet.registry import (
    DATA_SAMPLERS,
    DATASETS,
    HOOKS,
    LOOPS,
    METRICS,
    MODELS,
    OPTIMIZERS,
    PARAM_SCHEDULERS,
    TRANSFORMS,
)
from mmengine import Config
from mmengine.registry import Registry, init_default_scope
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from ..command_line import check_config_name
from ..errors import InputError, is_disk_full
from ..models.backbones.strict_loading import StrictlyPretrained
from ..models.checkpoint import check_weights, get_weights, read_checkpoint
from ..models.semi_supervised.objectives import UnsupervisedObjective

__all__ = [
    "build_module",
    "check_config",
    "check_numbers",
    "check_options",
    "find_assigners",
    "load_config",
]

# Settings of a training → lowest value.
_LOWEST = {
    "train_cfg.max_iters": 1,
    "train_cfg.max_epochs": 1,
    "train_cfg.val_interval": 1,
    "train_dataloader.batch_size": 1,
    "train_dataloader.num_workers": 0,
    "val_dataloader.batch_size": 1,
    "val_dataloader.num_workers": 0,
    "optim_wrapper.optimizer.lr": 0,
    "randomness.seed": 0,
}
# Settings that are read by mmdet's scripts and not by the runner.
_SCRIPT_KEYS = {"auto_scale_lr", "tta_model", "tta_pipeline"}
# Classes that pass unknown arguments on to the next class.
_PASSING_MODULES = ("mmdet_lesion.", "mmdet.datasets.", "mmengine.dataset.")
# Settings that MMEngine takes out of a dict before it builds a data loader or another object.
_LOADER_KEYS = {"num_batch_per_epoch", "persistent_workers"}
_BUILDER_KEYS = {"type", "_scope_", "priority", "convert_to_iter_based"}


def check_config(cfg: Config, stage: str, checkpoint: str | None = None) -> None:
    """Check files, settings and weights before the runner prints the config.

    Args:
        cfg: The config, with all options merged.
        stage: ``'train'`` or ``'test'``.
        checkpoint: File of the weights to resume from or to test; by default ``load_from`` of the
            config, of which a single weight that fits is enough.

    Raises:
        InputError: A file does not exist, an object cannot be built from its settings, or the
            weights are those of another model.
    """
    name = str(cfg.filename)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    stages = ["train", *(["val"] if cfg.get("val_cfg") else [])] if stage == "train" else ["test"]
    for where, settings, registry in _settings(cfg, stages):
        _check_arguments(f"{name}: {where}", settings, registry)
    for part in stages:
        loader = cfg.get(f"{part}_dataloader") or {}
        _check_loader(f"{name}: {part}_dataloader", loader)
        _check_files(name, f"{part}_dataloader.dataset", loader.get("dataset"))
        _check_files(name, f"{part}_evaluator", cfg.get(f"{part}_evaluator"))
    if stage == "train":
        _check_hard_negatives(name, cfg)
    partial = checkpoint is None
    checkpoint = checkpoint or cfg.get("load_from")
    # Read first, since the model may take longer.
    is_file = checkpoint is not None and "://" not in checkpoint
    weights = get_weights(read_checkpoint(checkpoint), checkpoint) if is_file else None
    model = _build_model(cfg)
    if stage == "train":
        for module in model.modules():
            if isinstance(module, StrictlyPretrained):
                module.check_pretrained()
        _check_objectives(name, cfg, getattr(model, "unsupervised", ()))
    if weights is not None:
        check_weights(model, weights, str(checkpoint), partial=partial)


def load_config(path: str | os.PathLike) -> Config:
    """Load a config file.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist; expected a config file")
    check_config_name(path)
    try:
        return Config.fromfile(path)
    except Exception as error:
        if is_disk_full(error):
            # MMEngine copies configs to a temporary folder.
            raise
        # A config is a program, which may raise any exception.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be read ({reason}); expected a config") from error


def build_module(settings: Any, where: str, registry: Registry = MODELS) -> Any:
    """Build a registered module from its settings.

    Raises:
        InputError: The settings are not those of a registered module.
    """
    try:
        return registry.build(settings)
    except InputError:
        raise
    except Exception as error:
        # Modules check their settings in many ways.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where} cannot be built ({reason}); expected a registered type and its arguments"
        ) from error


def check_options(cfg: Config, options: Mapping[str, Any], path: str) -> None:
    """Check that the first part of each key of ``--cfg-options`` is a setting.

    Args:
        cfg: The config without the options.
        options: Values by dotted keys.
        path: The config file, for messages.

    Raises:
        InputError: A key is unknown, and MMEngine would ignore it.
    """
    known = {*cfg, *inspect.signature(Runner.__init__).parameters, *_SCRIPT_KEYS} - {"self", "cfg"}
    for key in options:
        if key.split(".")[0] not in known:
            raise InputError(
                f"--cfg-options: {path} has no setting {key!r}; "
                f"expected {_similar(key.split('.')[0], known)}"
            )


def merge_options(cfg: Config, options: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Merge ``--cfg-options`` into a config.

    Args:
        cfg: The config, which is changed.
        options: Values by dotted keys.
        path: The config file, for messages.

    Raises:
        InputError: A key is unknown, or does not fit the config.
    """
    check_options(cfg, options, str(path))
    try:
        cfg.merge_from_dict(options)
    except Exception as error:
        # An index beyond a list, or a key below a number.
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"--cfg-options do not fit {path}: {reason}") from error


def check_numbers(cfg: Config) -> None:
    """Check numbers of a training config that MMEngine accepts or reports by a traceback.

    Raises:
        InputError: A number is out of range.
    """
    for path, lowest in _LOWEST.items():
        part: Any = cfg.to_dict()
        *parents, key = path.split(".")
        for parent in parents:
            part = part.get(parent) if isinstance(part, dict) else None
        value = part.get(key) if isinstance(part, dict) else None
        if value is None:
            continue
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not lowest <= value < math.inf or (key == "lr" and value == 0):
            expected = "a positive number" if key == "lr" else f"at least {lowest}"
            raise InputError(f"{cfg.filename}: {path} is {value!r}; expected {expected}")


def find_assigners(cfg: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the settings of all assigners at any depth of a model's settings.

    Args:
        cfg: The settings.
        where: Their key in the config, which starts the keys of the assigners.
    """
    if isinstance(cfg, Mapping):
        for key, value in cfg.items():
            if key == "assigner":
                yield f"{where}.assigner", value
            else:
                yield from find_assigners(value, f"{where}.{key}")
    elif isinstance(cfg, (list, tuple)):
        for index, value in enumerate(cfg):
            yield from find_assigners(value, f"{where}[{index}]")


def _check_hard_negatives(name: str, cfg: Config) -> None:
    """Raise if an assigner would ignore the hard negatives of a dataset."""
    dataset = (cfg.get("train_dataloader") or {}).get("dataset")
    parts = [settings for _, settings, registry in _datasets("", dataset) if registry is DATASETS]
    if not any(settings.get("hard_negatives") for settings in parts):
        return
    for where, assigner in find_assigners(cfg.model, "model"):
        thr = assigner.get("ignore_iof_thr", -1)
        if assigner.get("type") == "MaxIoUAssigner" and thr > 0:
            raise InputError(
                f"{name}: {where} is a MaxIoUAssigner with ignore_iof_thr={thr}, which ignores the "
                "hard negatives of the dataset; expected IgnoreAwareMaxIoUAssigner"
            )


def _check_objectives(name: str, cfg: Config, objectives: Sequence[UnsupervisedObjective]) -> None:
    """Raise if the objectives of a model do not fit the training."""
    if not objectives:
        return
    total_iterations = (cfg.get("train_cfg") or {}).get("max_iters")
    if total_iterations is not None:
        for objective in objectives:
            objective.check_training(total_iterations)
    if not _has_hook(cfg, "ObjectivesHook"):
        raise InputError(
            f"{name}: model.unsupervised without an ObjectivesHook, which keeps the state of "
            "objectives in checkpoints; expected one in default_hooks or custom_hooks"
        )
    for objective in objectives:
        if objective.needs_teacher and not _has_hook(cfg, "TeacherEMAHook"):
            raise InputError(
                f"{name}: {type(objective).__name__} in model.unsupervised without an averaged "
                "model; expected a TeacherEMAHook in custom_hooks"
            )


def _has_hook(cfg: Config, name: str) -> bool:
    """Return whether a config has a hook of a registered class or of a subclass."""
    wanted = HOOKS.get(name)
    for hook in (*(cfg.get("default_hooks") or {}).values(), *(cfg.get("custom_hooks") or ())):
        kind = hook.get("type") if isinstance(hook, Mapping) else type(hook)
        found = HOOKS.get(kind) if isinstance(kind, str) else kind
        if inspect.isclass(found) and issubclass(found, wanted):
            return True
    return False


def _check_files(name: str, where: str, node: Any) -> None:
    """Check annotation files and folders of datasets and evaluators, at any depth."""
    if isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            _check_files(name, f"{where}.{index}", value)
        return
    if not isinstance(node, Mapping):
        return
    root = node.get("data_root") or ""
    paths = {"ann_file": node.get("ann_file")}
    prefix = node.get("data_prefix")
    if isinstance(prefix, Mapping):
        paths |= {f"data_prefix.{key}": value for key, value in prefix.items()}
    for key, value in paths.items():
        if not isinstance(value, str) or not value or "://" in f"{root}{value}":
            continue
        path = os.path.join(root, value)
        if not os.path.exists(path):
            missing = _first_missing(Path(path))
            hint = "" if missing == Path(path) else f" ({missing} does not exist either)"
            expected = "a folder" if key.startswith("data_prefix") else "an annotation file"
            raise InputError(
                f"{name}: {where}.{key}: {path} does not exist{hint}; expected {expected}"
            )
    for key, value in node.items():
        if key != "pipeline":
            _check_files(name, f"{where}.{key}", value)


def _first_missing(path: Path) -> Path:
    while not path.parent.exists():
        path = path.parent
    return path


def _settings(cfg: Config, stages: Sequence[str]) -> Iterator[tuple[str, Any, Registry]]:
    """Yield the settings of objects, which are not built, with their keys and registries."""
    for part in stages:
        yield f"{part}_cfg", cfg.get(f"{part}_cfg"), LOOPS
        loader = cfg.get(f"{part}_dataloader") or {}
        yield f"{part}_dataloader.sampler", loader.get("sampler"), DATA_SAMPLERS
        yield from _datasets(f"{part}_dataloader.dataset", loader.get("dataset"))
        yield from _each(f"{part}_evaluator", cfg.get(f"{part}_evaluator"), METRICS)
    yield from _each("custom_hooks", cfg.get("custom_hooks"), HOOKS)
    for key, value in (cfg.get("default_hooks") or {}).items():
        yield f"default_hooks.{key}", value, HOOKS
    if "train" in stages:
        optimizer = (cfg.get("optim_wrapper") or {}).get("optimizer")
        yield "optim_wrapper.optimizer", optimizer, OPTIMIZERS
        yield from _each("param_scheduler", cfg.get("param_scheduler"), PARAM_SCHEDULERS)


def _each(where: str, node: Any, registry: Registry) -> Iterator[tuple[str, Any, Registry]]:
    if isinstance(node, Sequence) and not isinstance(node, str):
        for index, value in enumerate(node):
            yield f"{where}.{index}", value, registry
    else:
        yield where, node, registry


def _datasets(where: str, node: Any) -> Iterator[tuple[str, Any, Registry]]:
    """Yield a dataset, the datasets that it wraps, and their transforms."""
    if not isinstance(node, Mapping):
        return
    yield where, node, DATASETS
    yield from _each(f"{where}.pipeline", node.get("pipeline"), TRANSFORMS)
    yield from _datasets(f"{where}.dataset", node.get("dataset"))
    for index, value in enumerate(node.get("datasets") or ()):
        yield from _datasets(f"{where}.datasets.{index}", value)


def _check_arguments(where: str, settings: Any, registry: Registry) -> None:
    """Check the names of the arguments of a registered class."""
    if not isinstance(settings, Mapping) or not isinstance(settings.get("type"), str):
        return
    try:
        with registry.switch_scope_and_registry(settings.get("_scope_")) as scoped:
            found = scoped.get(settings["type"])
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{where}: {settings['type']} cannot be imported ({reason})") from error
    if found is None:
        raise InputError(
            f"{where}: {settings['type']!r} is not registered in {registry.name}; expected the "
            "name of a registered class"
        )
    accepted = _accepted(found)
    if accepted is None:
        return
    for key in settings:
        if key not in accepted and key not in _BUILDER_KEYS:
            raise InputError(
                f"{where}: {found.__name__} has no argument {key!r}; expected "
                f"{_similar(key, accepted)}"
            )


def _check_loader(where: str, settings: Mapping[str, Any]) -> None:
    known = {*inspect.signature(DataLoader.__init__).parameters, *_LOADER_KEYS} - {"self"}
    for key in settings:
        if key not in known:
            raise InputError(f"{where} has no argument {key!r}; expected {_similar(key, known)}")


def _accepted(found: Any) -> set[str] | None:
    """Return the names of the arguments, or None if the class passes on arbitrary ones.

    Only classes of this package and datasets are known to pass them on to the next class.
    """
    names: set[str] = set()
    for one in inspect.getmro(found) if inspect.isclass(found) else [found]:
        if inspect.isclass(one) and "__init__" not in vars(one):
            continue
        try:
            parameters = inspect.signature(one.__init__ if inspect.isclass(one) else one).parameters
        except (TypeError, ValueError):
            return None
        names |= set(parameters) - {"self"}
        kinds = {parameter.kind for parameter in parameters.values()}
        if inspect.Parameter.VAR_KEYWORD not in kinds:
            return names
        if not one.__module__.startswith(_PASSING_MODULES):
            return None
    return None


def _similar(key: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(key, sorted(known), n=3)
    return ", ".join(near) if near else f"one of {', '.join(sorted(known))}"


def _build_model(cfg: Config) -> nn.Module:
    """Build the model without its initial weights, as the runner does later."""
    settings = cfg.model.copy()
    if cfg.get("data_preprocessor") is not None:
        settings.setdefault("data_preprocessor", cfg.data_preprocessor)
    return build_module(settings, f"{cfg.filename}: model")
