"""Loading of detectors from a config and a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from ..command_line import check_config_name
from ..engine import cpu_settings
from ..errors import InputError, is_disk_full
from ..models.checkpoint import check_weights, read_weights

__all__ = ["Detector", "build_model", "build_module", "load_detector", "read_config"]


@dataclass
class Detector:
    """A detector that is ready to predict.

    Args:
        model: The model in eval mode on its device.
        cfg: The config.
        config: Path of the config.
        checkpoint: Path of the checkpoint.
        sha256: SHA-256 of the checkpoint file.
        spacing: Voxel spacing ``(x, y, z)`` in mm at which the detector works; 0 stands for the
            spacing of the scan.
        keep_thick: Whether not to interpolate slices that are farther apart than ``spacing``.
    """

    model: nn.Module
    cfg: Config
    config: str
    checkpoint: str
    sha256: str
    spacing: tuple[float, float, float]
    keep_thick: bool = False

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        metainfo = self.cfg.test_dataloader.dataset.get("metainfo") or {}
        return tuple(metainfo.get("classes", ("lesion",)))


def load_detector(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike,
    device: str = "auto",
    spacing: tuple[float, float, float] | None = None,
) -> Detector:
    """Load a detector that has ``predict_volume``.

    Args:
        config: Config file or config.
        checkpoint: Checkpoint whose ``state_dict`` is the model.
        device: ``'auto'`` (the first GPU, or the CPU without one), ``'cpu'``, ``'cuda:0'`` …
        spacing: Spacing ``(x, y, z)`` in mm that the model was trained at. The default is
            ``inference = dict(spacing=(x, y, z))`` of the config. 0 stands for the spacing of the
            scan. If ``inference`` also contains ``keep_thick=True``, slices that are farther apart
            than z are not interpolated.

    Raises:
        InputError: Config, checkpoint, device or spacing is invalid.
    """
    cfg = read_config(config)
    name = str(cfg.filename or "config")
    inference = cfg.get("inference") or {}
    if spacing is None:
        spacing = inference.get("spacing")
    if spacing is None:
        raise InputError(
            f"{name} does not contain the spacing at which the detector works; expected "
            "inference = dict(spacing=(x, y, z)) in it, or the argument spacing"
        )
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(0 <= value < 100 for value in values):
        raise InputError(f"{name}: the spacing is {values}; expected three mm (x, y, z)")
    model = build_model(cfg, checkpoint, device)
    if not hasattr(model, "predict_volume"):
        raise InputError(
            f"{name} has a model of type {type(model).__name__}, which has no predict_volume; "
            "expected a detector for volumes, such as SliceFasterRCNN or FocalMix"
        )
    path = Path(checkpoint)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    keep_thick = bool(inference.get("keep_thick", False))
    return Detector(model, cfg, name, str(path), digest, values, keep_thick)


def read_config(
    config: str | os.PathLike | Config, keys: Sequence[str] = ("model", "test_dataloader")
) -> Config:
    """Read the config of a detector.

    Args:
        config: Config file, or a config, which is copied.
        keys: Settings that it must contain as dicts.

    Raises:
        InputError: The file does not exist, cannot be read, or is not the config of a detector.
    """
    if isinstance(config, Config):
        cfg = config.copy()
    else:
        if not os.path.isfile(config):
            raise InputError(f"{config} does not exist; expected a config file")
        check_config_name(config)
        try:
            cfg = Config.fromfile(config)
        except Exception as error:
            if is_disk_full(error):
                # MMEngine copies configs to a temporary folder.
                raise
            # A config is a program, which may raise any exception.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{config} cannot be read ({reason}); expected a config") from error
    name = cfg.filename or "the config"
    for key in keys:
        if key not in cfg:
            raise InputError(f"{name} has no {key}; expected a detector")
        if not isinstance(cfg[key], dict):
            raise InputError(f"{name}: {key} is {cfg[key]!r}; expected a dict")
    return cfg


def build_module(settings: Any, where: str) -> nn.Module:
    """Build a registered module from its settings.

    Raises:
        InputError: The settings are not those of a registered module.
    """
    try:
        return MODELS.build(settings)
    except InputError:
        raise
    except Exception as error:
        # Modules check their settings in many ways.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{where} cannot be built ({reason}); expected a registered type and its arguments"
        ) from error


def build_model(cfg: Config, checkpoint: str | os.PathLike, device: str = "auto") -> nn.Module:
    """Build the model of a config and load its weights, all of which must fit.

    Args:
        cfg: The config. On a CPU, :func:`~mmdet_lesion.engine.cpu_settings` are added to it.
        checkpoint: Checkpoint whose ``state_dict`` is the model.
        device: ``'auto'`` (the first GPU, or the CPU without one), ``'cpu'``, ``'cuda:0'`` …

    Returns:
        The model in eval mode on its device.

    Raises:
        InputError: The device cannot be used, or the checkpoint is invalid or of another model.
    """
    torch_device = _device(device)
    weights = read_weights(checkpoint)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    if torch_device.type == "cpu":
        cfg.merge_from_dict(cpu_settings(cfg))
    if isinstance(cfg.model.get("backbone"), dict):
        cfg.model.backbone.init_cfg = None
    name = cfg.filename or "the config"
    model = revert_sync_batchnorm(build_module(cfg.model, f"{name}: model"))
    check_weights(model, weights, checkpoint)
    model.load_state_dict(weights, strict=False)
    _check_normalization(model, name)
    return model.to(torch_device).eval()


def _check_normalization(model: nn.Module, config: str) -> None:
    """Check mean and standard deviation of the data preprocessor, which are not in checkpoints."""
    preprocessor = getattr(model, "data_preprocessor", nn.Module())
    for name, value in preprocessor.named_buffers():
        if not value.isfinite().all() or (name == "std" and (value <= 0).any()):
            raise InputError(
                f"{config}: data_preprocessor has {name}="
                f"{value.flatten().tolist()}; expected finite{' positive' * (name == 'std')} "
                "numbers"
            )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except Exception:
        # AssertionError without CUDA in torch, RuntimeError for an unknown or absent device.
        raise InputError(
            f"the device {name!r} cannot be used here; expected cpu, or cuda:N of "
            f"{torch.cuda.device_count()} GPUs"
        ) from None
    return device
