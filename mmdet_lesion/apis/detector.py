"""Loading of detectors from a config and a checkpoint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
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
from ..models.detectors import View
from ..processes import keep_freed_memory

__all__ = [
    "DEFAULT_FUSION",
    "DEFAULT_NMS",
    "Checkpoints",
    "Detector",
    "build_model",
    "build_module",
    "load_detector",
    "read_config",
]

#: Suppression of overlapping lesions of a scan, unless the config has ``inference.nms``.
DEFAULT_NMS = dict(type="nms3d", iou_threshold=0.3, containment_threshold=0.7)
#: Fusion of the boxes of several predictions, unless the config has ``inference.fusion``.
DEFAULT_FUSION = dict(type="WeightedBoxFusion")

Checkpoints = str | os.PathLike | Sequence[str | os.PathLike]


@dataclass
class Detector:
    """A detector, or an ensemble of detectors of the same config, that is ready to predict.

    Args:
        models: The models in eval mode on their device.
        cfg: The config.
        config: Path of the config.
        checkpoints: Paths of the checkpoints.
        sha256: SHA-256 of the checkpoint file; of several files, that of their SHA-256 in lines.
        spacing: Voxel spacing ``(x, y, z)`` in mm at which the detector works; 0 stands for the
            spacing of the scan.
        keep_thick: Whether not to interpolate slices that are farther apart than ``spacing``.
        nms: Config of the suppression of overlapping lesions, or None to keep all.
        skip_air: Whether to search for lesions in the body only.
        views: Views that each model predicts on.
        fusion: Config of the fusion of the predictions of several models or views.
        notice: What every result has to say about the weights, such as that they are for
            demonstration, or None.
    """

    models: tuple[nn.Module, ...]
    cfg: Config
    config: str
    checkpoints: tuple[str, ...]
    sha256: str
    spacing: tuple[float, float, float]
    keep_thick: bool = False
    nms: dict[str, Any] | None = None
    skip_air: bool = True
    views: tuple[View, ...] = (View(),)
    fusion: dict[str, Any] = field(default_factory=lambda: dict(DEFAULT_FUSION))
    notice: str | None = None

    @property
    def model(self) -> nn.Module:
        """The first model."""
        return self.models[0]

    @property
    def checkpoint(self) -> str:
        """Paths of the checkpoints, separated by commas."""
        return ", ".join(self.checkpoints)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the labels."""
        metainfo = self.cfg.test_dataloader.dataset.get("metainfo") or {}
        return tuple(metainfo.get("classes", ("lesion",)))

    @property
    def is_fused(self) -> bool:
        """Whether there are several predictions of a scan, whose boxes are fused."""
        return len(self.models) > 1 or self.views != (View(),)

    @property
    def ensemble(self) -> dict[str, Any]:
        """Description of the predictions that are fused; empty for a single one."""
        if not self.is_fused:
            return {}
        views = [
            dict(axes=list(view.symmetry.axes), flips=list(view.symmetry.flips), scale=view.scale)
            for view in self.views
        ]
        return dict(ensemble=dict(models=len(self.models), views=views, fusion=self.fusion))

    def predictions(self) -> Iterator[tuple[nn.Module, str, View]]:
        """Yield the model, its checkpoint and the view of each prediction of a scan."""
        for model, checkpoint in zip(self.models, self.checkpoints, strict=True):
            for view in self.views:
                yield model, checkpoint, view


def load_detector(
    config: str | os.PathLike | Config,
    checkpoint: Checkpoints,
    device: str = "auto",
    spacing: tuple[float, float, float] | None = None,
    tta: bool = False,
) -> Detector:
    """Load a detector that has ``predict_volume``, or several of the same config.

    Args:
        config: Config file or config.
        checkpoint: Checkpoint whose ``state_dict`` is the model, or a sequence of checkpoints of
            the config, whose models form an ensemble.
        device: ``'auto'`` (the first GPU, or the CPU without one), ``'cpu'``, ``'cuda:0'`` …
        spacing: Spacing ``(x, y, z)`` in mm that the model was trained at. The default is
            ``inference = dict(spacing=(x, y, z))`` of the config. 0 stands for the spacing of the
            scan. If ``inference`` also contains ``keep_thick=True``, slices that are farther apart
            than z are not interpolated. ``inference.nms`` replaces :data:`DEFAULT_NMS`; None
            keeps overlapping lesions. ``inference.skip_air=False`` searches for lesions also in
            air and tables outside of the body, which takes longer.
        tta: Whether to predict on several views of a scan. ``inference.tta`` contains the arguments
            of the detector's ``tta_views``. Boxes of several views or models are fused by
            ``inference.fusion``, by default :data:`DEFAULT_FUSION`
            (:class:`~mmdet_lesion.models.task_modules.WeightedBoxFusion`).

    Raises:
        InputError: Config, checkpoint, device or spacing is invalid, there is no checkpoint, or
            the checkpoints do not belong together.
    """
    paths = _checkpoint_paths(checkpoint)
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
        nms = _task_module(nms, f"{name}: inference.nms", "a dict or None")
    fusion = _task_module(inference.get("fusion", DEFAULT_FUSION), f"{name}: inference.fusion")
    models, notices = [], []
    for path in paths:
        content = read_checkpoint(path)
        models.append(build_model(cfg, path, device, content))
        notices.append(_meta(content).get("notice"))
    if not hasattr(models[0], "predict_volume"):
        raise InputError(
            f"{name} has a model of type {type(models[0]).__name__}, which has no predict_volume; "
            "expected a detector for volumes, such as SliceFasterRCNN or FocalMix"
        )
    views: Sequence[View] = (View(),)
    if len(models) > 1 or tta:
        if not hasattr(models[0], "detect_boxes"):
            raise InputError(
                f"{name} has a model of type {type(models[0]).__name__}, which has no "
                "detect_boxes; expected one checkpoint and no test-time augmentation, or a "
                "detector such as SliceFasterRCNN or FocalMix"
            )
        _check_classes(paths)
    if tta:
        views = _tta_views(models[0], values, inference.get("tta", {}), name)
    digests = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in paths]
    digest = digests[0]
    if len(digests) > 1:
        digest = hashlib.sha256("\n".join(digests).encode()).hexdigest()
    return Detector(
        models=tuple(models),
        cfg=cfg,
        config=name,
        checkpoints=tuple(paths),
        sha256=digest,
        spacing=values,
        keep_thick=bool(inference.get("keep_thick", False)),
        nms=nms,
        skip_air=bool(inference.get("skip_air", True)),
        views=tuple(views),
        fusion=fusion,
        notice=" ".join(dict.fromkeys(str(one) for one in notices if one)) or None,
    )


def _checkpoint_paths(checkpoint: Checkpoints) -> list[str]:
    """Return the paths of one or several checkpoints."""
    if isinstance(checkpoint, (str, os.PathLike)):
        checkpoint = [checkpoint]
    paths = [str(Path(path)) for path in checkpoint]
    if not paths:
        raise InputError("the list of checkpoints is empty; expected one or more")
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"the checkpoint {path} is given twice; expected different ones")
    return paths


def _check_classes(paths: Sequence[str]) -> None:
    """Check that checkpoints that name their classes have the same ones."""
    known: dict[str, tuple] = {}
    for path in paths:
        classes = (_meta(read_checkpoint(path)).get("dataset_meta") or {}).get("classes")
        if classes is not None:
            known[path] = tuple(classes)
    for path, classes in known.items():
        first, expected = next(iter(known.items()))
        if classes != expected:
            raise InputError(
                f"{path} was trained on the classes {classes}, {first} on {expected}; expected "
                "checkpoints of the same classes"
            )


def _task_module(settings: Any, where: str, expected: str = "a dict") -> dict[str, Any]:
    """Check the settings of a task module and return a copy."""
    if not isinstance(settings, dict):
        raise InputError(f"{where} is {settings!r}; expected {expected}")
    settings = dict(settings)
    build_module(settings, where, TASK_UTILS)
    return settings


def _tta_views(
    model: nn.Module, spacing: Sequence[float], settings: Any, config: str
) -> Sequence[View]:
    """Return the views of test-time augmentation that the config asks for."""
    where = f"{config}: inference.tta"
    if not isinstance(settings, dict):
        raise InputError(f"{where} is {settings!r}; expected a dict")
    tta_views: Any = model.tta_views
    try:
        return tta_views(spacing, **settings)
    except TypeError as error:
        raise InputError(
            f"{where} is {dict(settings)} ({error}); expected arguments of "
            f"{type(model).__name__}.tta_views"
        ) from None


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
