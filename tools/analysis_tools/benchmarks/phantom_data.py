"""Phantoms that replace the training data of a config."""

from __future__ import annotations

import os
from pathlib import Path

from mmengine.config import Config, ConfigDict

from mmdet_lesion import InputError
from mmdet_lesion.converters import DeepLesionConversion, Luna16Conversion
from mmdet_lesion.synthesis import (
    Luna16PhantomConfig,
    PhantomConfig,
    make_deeplesion,
    make_luna16,
)

FULL_SIZE, FULL_PATCH = 512, 160


def training_parts(cfg: Config) -> list[ConfigDict]:
    """Return the training datasets of a config: one, or the parts of a concatenated one."""
    dataset = cfg.train_dataloader.dataset
    return dataset.get("datasets", [dataset])


def use_phantoms(cfg: Config, folder: Path, size: int, patch: int) -> None:
    """Generate phantoms and train a config on them.

    The pipeline is unchanged. Existing phantoms in ``folder`` are reused.

    Args:
        cfg: A config on slices or on patches, changed in place.
        folder: Folder to write to.
        size: Rows and columns of the published slices.
        patch: Edge length of the patches in voxels.

    Raises:
        InputError: The config trains on another dataset.
    """
    parts = training_parts(cfg)
    kind = parts[0].type
    if kind == "DeepLesionDataset":
        store = _deeplesion(cfg, folder, size)
    elif kind == "Luna16Dataset":
        store = _luna16(cfg, folder, patch)
    else:
        raise InputError(
            f"{cfg.filename} trains on {kind}; expected DeepLesionDataset or Luna16Dataset"
        )
    for part in parts:
        part.data_root = f"{store}/"
        if kind == "Luna16Dataset":
            name = "unlabeled_3" if part.get("labeled") is False else "labeled_3"
            part.ann_file = f"annotations/{name}.json"
        for step in part.pipeline:
            if step.type == "ResizeSlices":
                step.scale = (size, size)
            elif step.type == "LoadPatch":
                step.size = patch


def _deeplesion(cfg: Config, folder: Path, size: int) -> Path:
    # Phantoms show a whole body at any size, so small images have large pixels.
    x, y, _ = cfg.inference.spacing
    spacing = (x * FULL_SIZE / size, y * FULL_SIZE / size)
    masks = any(step.get("with_mask") for step in training_parts(cfg)[0].pipeline)
    name = "_".join(f"{value:g}" for value in (size, *spacing)) + ("_masks" if masks else "")
    raw, store = folder / f"deeplesion_{size}", folder / f"deeplesion_{name}"
    if not raw.is_dir():
        slices = (24, 28) if size == FULL_SIZE else (8, 10)
        config = PhantomConfig(volumes=10, size=size, slices=slices, diameter=(10.0, 60.0))
        make_deeplesion(raw, config, workers=_workers(), progress=False)
    if not store.is_dir():
        conversion = DeepLesionConversion(raw, store, raw / "harvester", spacing, masks=masks)
        conversion.run(workers=_workers(), progress=False)
    return store


def _luna16(cfg: Config, folder: Path, patch: int) -> Path:
    full = patch >= FULL_PATCH // 2
    raw, store = (folder / f"{kind}_{'full' if full else 'small'}" for kind in ("raw", "luna16"))
    if not raw.is_dir():
        # For small patches, small patients are sufficient and faster to generate.
        scan = (
            dict(size=320, pixel=(1.0, 1.2), interval=(1.5, 2.5))
            if full
            else dict(size=48, pixel=(2.0, 2.6), interval=(2.0, 3.0), stature=(0.28, 0.35))
        )
        config = Luna16PhantomConfig(volumes=10, nodules=(1, 3), vessels=3, **scan)
        make_luna16(raw, config, workers=_workers(), progress=False)
    if not store.is_dir():
        conversion = Luna16Conversion(
            raw, store, cfg.inference.spacing, train=6, test=4, labeled=(2, 3), unlabeled=3
        )
        conversion.run(workers=_workers(), progress=False)
    return store


def _workers() -> int:
    return min(10, len(os.sched_getaffinity(0)))
