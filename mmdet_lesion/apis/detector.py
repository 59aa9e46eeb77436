"""Loading of detectors from a config and a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmdet.registry import TASK_UTILS
from mmengine import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import init_default_scope
from torch import nn

from ..engine import cpu_settings
from ..engine.config_checks import build_module, load_config
from ..errors import InputError
from ..models.checkpoint import check_weights, get_weights, read_checkpoint
from ..processes import keep_freed_memory

__all__ = ["DEFAULT_NMS", "Detector", "build_model", "build_module", "load_detector", "read_config"]

#: Suppression of overlapping lesions of a scan, unless the config has ``inference.nms``.
DEFAULT_NMS = dict(type="nms3d", iou_threshold=0.3, containment_threshold=0.7)


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
        nms: Config of the suppression of overlapping lesions, or None to keep all.
        skip_air: Whether to search for lesions in the body only.
        notice: What every result has to say about the weights, such as that they are for
            demonstration, or None.
    """

    model: nn.Module
    cfg: Config
    config: str
    checkpoint: str
    sha256: str
    spacing: tuple[float, float, float]
    keep_thick: bool = False
    nms: dict[str, Any] | None = None
    skip_air: bool = True
    notice: str | None = None

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
            than z are not interpolated. ``inference.nms`` replaces :data:`DEFAULT_NMS`; None
            keeps overlapping lesions. ``inference.skip_air=False`` searches for lesions also in
            air and tables outside of the body, which takes longer.

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
    nms = inference.get("nms", DEFAULT_NMS)
    if nms is not None:
        if not isinstance(nms, dict):
            raise InputError(f"{name}: inference.nms is {nms!r}; expected a dict or None")
        nms = dict(nms)
        build_module(nms, f"{name}: inference.nms", TASK_UTILS)
    content = read_checkpoint(checkpoint)
    model = build_model(cfg, checkpoint, device, content)
    if not hasattr(model, "predict_volume"):
        raise InputError(
            f"{name} has a model of type {type(model).__name__}, which has no predict_volume; "
            "expected a detector for volumes, such as SliceFasterRCNN or FocalMix"
        )
    path = Path(checkpoint)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    keep_thick = bool(inference.get("keep_thick", False))
    skip_air = bool(inference.get("skip_air", True))
    notice = _meta(content).get("notice")
    return Detector(
        model,
        cfg,
        name,
        str(path),
        digest,
        values,
        keep_thick,
        nms,
        skip_air,
        None if notice is None else str(notice),
    )


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
    cfg = config.copy() if isinstance(config, Config) else load_config(config)
    name = cfg.filename or "the config"
    for key in keys:
        if key not in cfg:
            raise InputError(f"{name} has no {key}; expected a detector")
        if not isinstance(cfg[key], dict):
            raise InputError(f"{name}: {key} is {cfg[key]!r}; expected a dict")
    return cfg


def build_model(
    cfg: Config, checkpoint: str | os.PathLike, device: str = "auto", content: Any = None
) -> nn.Module:
    """Build the model of a config and load its weights, all of which must fit.

    Weights in half precision are converted to the precision of the model. A checkpoint of the model
    zoo must not have other tensors either.

    Args:
        cfg: The config. On a CPU, :func:`~mmdet_lesion.engine.cpu_settings` are added to it.
        checkpoint: Checkpoint whose ``state_dict`` is the model.
        device: ``'auto'`` (the first GPU, or the CPU without one), ``'cpu'``, ``'cuda:0'`` …
        content: Content of the checkpoint, if it has been read already.

    Returns:
        The model in eval mode on its device.

    Raises:
        InputError: The device cannot be used, or the checkpoint is invalid or of another model.
    """
    torch_device = _device(device)
    content = read_checkpoint(checkpoint) if content is None else content
    weights = get_weights(content, checkpoint)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    if torch_device.type == "cpu":
        keep_freed_memory()
        cfg.merge_from_dict(cpu_settings(cfg))
    if isinstance(cfg.model.get("backbone"), dict):
        cfg.model.backbone.init_cfg = None
    name = cfg.filename or "the config"
    model = revert_sync_batchnorm(build_module(cfg.model, f"{name}: model"))
    check_weights(model, weights, checkpoint, exact="model_zoo" in _meta(content))
    model.load_state_dict(weights, strict=False)
    _check_normalization(model, name)
    return model.to(torch_device).eval()


def _meta(content: Any) -> dict[str, Any]:
    """Return what a checkpoint says about itself, such as ``model_zoo``, the name of a model."""
    meta = content.get("meta") if isinstance(content, dict) else None
    return meta if isinstance(meta, dict) else {}


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
