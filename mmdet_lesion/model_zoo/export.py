"""Export of a trained checkpoint to the weights of a demonstration model."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import torch
from mmengine import Config
from mmengine.registry import init_default_scope

from ..engine.config_checks import build_module
from ..errors import InputError
from ..io.atomic import atomic_write
from ..models.checkpoint import check_weights, read_weights
from .catalog import NOTICE

__all__ = ["export_weights"]


def export_weights(
    checkpoint: str | os.PathLike, cfg: Config, name: str, path: str | os.PathLike
) -> dict[str, Any]:
    """Write the weights of a checkpoint as half-precision tensors.

    Args:
        checkpoint: Checkpoint of a training.
        cfg: Config of the model.
        name: Name of the model.
        path: File to write. Besides ``state_dict`` it has ``meta`` with ``model_zoo`` (the name)
            and ``notice``, which results of the model show.

    Returns:
        ``parameters`` (their number), ``bytes`` and ``sha256`` of the file.

    Raises:
        InputError: The weights are not exactly those of the config's model, or a value exceeds the
            range of half precision.
    """
    weights = read_weights(checkpoint)
    init_default_scope(cfg.get("default_scope", "mmdet"))
    settings = cfg.model.copy()
    if isinstance(settings.get("backbone"), dict):
        settings.backbone.init_cfg = None
    model = build_module(settings, f"{name}: model")
    check_weights(model, weights, checkpoint, exact=True)
    state: dict[str, torch.Tensor] = {}
    for key, value in weights.items():
        half = value.half() if value.is_floating_point() else value
        if not half.isfinite().all():
            raise InputError(
                f"{checkpoint}: {key} has values up to {value.abs().max():g}; expected those of "
                "half precision (65504)"
            )
        state[key] = half.contiguous().clone()
    path = Path(path)
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        # Given a path, torch would store its name, and the bytes would depend on it.
        torch.save({"meta": {"model_zoo": name, "notice": NOTICE}, "state_dict": state}, file)
    return dict(
        parameters=sum(value.numel() for value in model.parameters()),
        bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
