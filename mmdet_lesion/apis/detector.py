"""A detector from its config and checkpoint, checked before a scan is read."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from ..engine import cpu_settings
from ..errors import InputError

__all__ = ["Detector", "load_detector"]


@dataclass
class Detector:
    """A detector that is ready to predict.

    Args:
        model: The model in eval mode on its device.
        cfg: The config.
        config: Where the config came from.
        checkpoint: Where the weights came from.
        sha256: Of the checkpoint file.
        spacing: Voxel spacing ``(x, y, z)`` in mm that the detector works at; 0 stands for that
            of the scan.
        keep_thick: Slices of a scan that are farther apart than ``spacing`` stay as they are.
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
        """Names of the labels."""
        metainfo = self.cfg.test_dataloader.dataset.get("metainfo") or {}
        return tuple(metainfo.get("classes", ("lesion",)))


def load_detector(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike,
    device: str = "auto",
    spacing: tuple[float, float, float] | None = None,
) -> Detector:
    """Build a detector and load its weights, all of which must fit.

    Args:
        config: Config file, or the config itself.
        checkpoint: Checkpoint whose ``state_dict`` is the model.
        device: ``'auto'`` (the first GPU if there is one, otherwise the CPU), ``'cpu'``,
            ``'cuda:0'`` …
        spacing: Spacing that the model was trained at, by default the config's
            ``inference = dict(spacing=(x, y, z))``; 0 keeps that of the scan. With
            ``keep_thick=True`` in it slices that are farther apart than z stay as they are.

    Raises:
        InputError: One of them cannot be used; the message says why.
    """
    cfg = _read_config(config)
    name = str(cfg.filename or "config")
    inference = cfg.get("inference") or {}
    if spacing is None:
        spacing = inference.get("spacing")
    if spacing is None:
        raise InputError(
            f"{name} does not say at which spacing the detector works; expected "
            "inference = dict(spacing=(x, y, z)) in it, or --spacing X Y Z in mm"
        )
    values = tuple(float(value) for value in spacing)
    if len(values) != 3 or not all(0 <= value < 100 for value in values):
        raise InputError(f"{name}: the spacing is {values}; expected three mm (x, y, z)")
    torch_device = _device(device)
    path = Path(checkpoint)
    state = _read_state(path)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    if torch_device.type == "cpu":
        cfg.merge_from_dict(cpu_settings(cfg))
    if "backbone" in cfg.model:
        cfg.model.backbone.init_cfg = None
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    if not hasattr(model, "predict_volume"):
        raise InputError(
            f"{name} has a model of type {type(model).__name__}, which has no predict_volume; "
            "expected a detector for volumes, such as SliceFasterRCNN or FocalMix"
        )
    _check_fits(path, model, state)
    model.load_state_dict(state, strict=False)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    model = model.to(torch_device).eval()
    keep_thick = bool(inference.get("keep_thick", False))
    return Detector(model, cfg, name, str(path), digest, values, keep_thick)


def _read_config(config: str | os.PathLike | Config) -> Config:
    if isinstance(config, Config):
        cfg = config.copy()
    else:
        if not os.path.isfile(config):
            raise InputError(f"{config} does not exist; expected a config file")
        try:
            cfg = Config.fromfile(config)
        except Exception as error:
            # A config is a program: it may fail in any way.
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise InputError(f"{config} is no config that mmengine reads: {reason}") from error
    missing = [key for key in ("model", "test_dataloader") if key not in cfg]
    if missing:
        raise InputError(f"{cfg.filename or 'the config'} has no {missing[0]}; expected a detector")
    return cfg


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


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a checkpoint")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{path} cannot be loaded, it is damaged or no checkpoint: {reason}"
        ) from None
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, dict) or not any(map(torch.is_tensor, state.values())):
        raise InputError(f"{path} holds no state_dict; expected a checkpoint")
    return state


def _check_fits(path: Path, model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    """Loading by name would leave what does not fit untrained, and find nonsense."""
    ours = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    theirs = {key: tuple(value.shape) for key, value in state.items() if torch.is_tensor(value)}
    wrong = sorted(key for key, shape in ours.items() if theirs.get(key) != shape)
    if wrong:
        found = f"has shape {theirs[wrong[0]]}" if wrong[0] in theirs else "is not in it"
        raise InputError(
            f"{path} is a checkpoint of another model: {len(wrong)} of the config's {len(ours)} "
            f"tensors do not fit, such as {wrong[0]}, which {found}; expected {ours[wrong[0]]}"
        )
