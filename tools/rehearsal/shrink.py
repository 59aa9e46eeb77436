"""Reduction of a config to the scale of a rehearsal."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

from mmdet_lesion import InputError
from mmdet_lesion.models.backbones.weight_sources import are_weights_local

from .handful import (
    Handful,
    add_hard_negatives,
    crop_scans,
    crop_slices,
    name_sources,
    phantom_scans,
    phantom_slices,
)

__all__ = ["Scale", "lacks_data", "rehearsal_config"]

_VOLUMES = "Luna16Dataset"
_SLICES = "DeepLesionDataset"


class Scale:
    """Scale of a rehearsal.

    Args:
        iters: Training iterations.
        samples: Labeled samples.
        batch_size: Labeled images or patches per step; None keeps that of the config.
        crop: Edge length of the crops in pixels or voxels; None keeps whole slices and the config's
            patches.
        seed: Seed of data and training.
    """

    def __init__(
        self, iters: int, samples: int, batch_size: int | None, crop: int | None, seed: int
    ) -> None:
        self.iters = iters
        self.samples = samples
        self.batch_size = batch_size
        self.crop = crop
        self.seed = seed


def rehearsal_config(cfg: Config, scale: Scale, out: Path, data: Path) -> tuple[Config, list[str]]:
    """Reduce a config to the scale of a rehearsal.

    Width, depth, losses, norms, samplers of anchors and proposals, and the optimizer are unchanged.

    Args:
        cfg: Any config that trains on ``DeepLesionDataset`` or ``Luna16Dataset``.
        scale: Scale of the rehearsal.
        out: Folder of this rehearsal.
        data: Folder of phantoms shared by all rehearsals.

    Returns:
        The reduced config, and a description of each change.

    Raises:
        InputError: The config uses another dataset.
    """
    cfg = Config(cfg._cfg_dict.to_dict(), filename=cfg.filename)
    changes: list[str] = []
    batch_size = cfg.train_dataloader.batch_size
    kinds = {dataset["type"] for dataset in _datasets(cfg.train_dataloader.dataset)}
    if kinds == {_VOLUMES}:
        _use_scans(cfg, scale, out, data, changes)
    elif kinds == {_SLICES}:
        _use_slices(cfg, scale, out, data, changes)
    else:
        raise InputError(
            f"{cfg.filename}: train_dataloader has the datasets {', '.join(sorted(kinds))}; "
            f"expected {_SLICES} or {_VOLUMES}"
        )
    _shorten(cfg, scale, batch_size, changes)
    _without_download(cfg, changes)
    cfg.randomness = dict(seed=scale.seed)
    cfg.work_dir = str(out / "work_dir")
    cfg.resume, cfg.load_from = False, None
    return cfg, changes


def _datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """Return the datasets of a training, without wrappers."""
    if "datasets" in dataset:
        return [one for inner in dataset.datasets for one in _datasets(inner)]
    return _datasets(dataset.dataset) if "dataset" in dataset else [dataset]


def _paths(dataset: ConfigDict) -> tuple[Path, Path]:
    """Return the annotation file and the folder of volumes of a dataset."""
    root = Path(dataset.get("data_root") or "")
    prefix = dataset.get("data_prefix", dict(volume="volumes/"))
    return root / dataset.ann_file, root / prefix["volume"]


def _slice_paths(cfg: Config) -> tuple[Path, Path]:
    """Return the annotation file and the volumes to crop slices from."""
    # Tests on volumes require complete annotations, which the training set lacks.
    if cfg.test_dataloader.dataset.get("sample", "slice") == "volume":
        return _paths(cfg.val_dataloader.dataset)
    return _paths(_datasets(cfg.train_dataloader.dataset)[0])


def lacks_data(cfg: Config) -> bool:
    """Return whether annotation files of a config are missing, so that phantoms replace them."""
    datasets = _datasets(cfg.train_dataloader.dataset)
    if datasets[0]["type"] == _SLICES:
        return not _slice_paths(cfg)[0].is_file()
    return not all(_paths(dataset)[0].is_file() for dataset in datasets)


def _use_slices(cfg: Config, scale: Scale, out: Path, data: Path, changes: list[str]) -> None:
    (train,) = _datasets(cfg.train_dataloader.dataset)
    test = cfg.test_dataloader.dataset
    whole = test.get("sample", "slice") == "volume"
    ann_file, volumes = _slice_paths(cfg)
    if ann_file.is_file():
        changes.append(f"{scale.samples} samples of {ann_file}")
    else:
        folder, files = phantom_slices(data)
        changes.append(f"phantoms, since {ann_file} does not exist; {scale.samples} samples")
        ann_file, volumes = files["volume" if whole else "slice"], folder
    handful = crop_slices(
        ann_file, volumes, out / "data", scale.samples, scale.crop, scale.seed, whole
    )
    if scale.crop:
        changes.append(f"slices cropped to {scale.crop} x {scale.crop} around a lesion")
        if cfg.model.backbone.get("with_cp"):
            changes.append("no gradient checkpointing, which affects only memory")
            cfg.model.backbone.with_cp = False
    for dataset in (train, test):
        _point_at(dataset, handful, handful.ann_file)
    if train.get("hard_negatives"):
        train.ann_file = add_hard_negatives(handful)
        changes.append("a hard negative per sample: the brightest place without a lesion")
    elif "mined" in train.get("sources", ()):
        train.ann_file = name_sources(handful, train.sources)
        changes.append(f"lesions from the sources {', '.join(train.sources)} in turn")
    train.filter_cfg = dict(filter_empty_gt=True)
    for pipeline in (train.pipeline, test.pipeline):
        for transform in pipeline:
            if transform["type"] == "ResizeSlices" and scale.crop:
                transform["scale"] = (scale.crop, scale.crop)
    loader = cfg.train_dataloader
    if scale.batch_size and scale.batch_size != loader.batch_size:
        changes.append(f"batch of {scale.batch_size} instead of {loader.batch_size}")
        loader.batch_size = scale.batch_size


def _use_scans(cfg: Config, scale: Scale, out: Path, data: Path, changes: list[str]) -> None:
    datasets = _datasets(cfg.train_dataloader.dataset)
    labeled = [one for one in datasets if one.get("labeled") is not False]
    unlabeled = [one for one in datasets if one.get("labeled") is False]
    if len(labeled) != 1 or len(unlabeled) > 1:
        raise InputError(
            f"{cfg.filename}: {len(labeled)} labeled and {len(unlabeled)} unlabeled datasets; "
            "expected one labeled and at most one unlabeled dataset"
        )
    ann_file, folder = _paths(labeled[0])
    pool, pool_folder = _paths(unlabeled[0]) if unlabeled else (None, None)
    if not lacks_data(cfg):
        changes.append(f"{scale.samples} nodules of {ann_file}")
    else:
        changes.append(f"phantoms, since {ann_file} does not exist; {scale.samples} nodules")
        folder, ann_file, phantom_pool = phantom_scans(data)
        pool, pool_folder = (phantom_pool, folder) if unlabeled else (None, None)
    crop = scale.crop
    # A third larger than a patch, so that training draws patches and a test slides them.
    edge = math.ceil(crop * 4 / 3 / 16) * 16 if crop else None
    handful = crop_scans(
        ann_file, pool, (folder, pool_folder), out / "data", scale.samples, edge, scale.seed
    )
    _point_at(labeled[0], handful, handful.ann_file)
    _point_at(cfg.test_dataloader.dataset, handful, handful.ann_file)
    for one in unlabeled:
        _point_at(one, handful, handful.unlabeled)
    if crop:
        for one in datasets:
            for transform in one.pipeline:
                if transform["type"] == "LoadPatch":
                    # Keep the fraction of a patch that may extend beyond the scan.
                    own = transform.get("border", 16)
                    border = round(own * crop / transform["size"])
                    sentence = f"patches of {crop} instead of {transform['size']} voxels"
                    sentence += f", extending beyond the scan by {border} instead of {own}"
                    if sentence not in changes:
                        changes.append(sentence)
                    transform.update(size=crop, border=border)
        # About a third of the patch, in multiples of the largest stride.
        overlap = max(crop // 48, crop // 32 > 0) * 16
        cfg.model.test_cfg.update(patch_size=crop, patch_overlap=overlap)
        changes.append(f"tested in patches of {crop} that overlap by {overlap}")
        changes.append(f"scans cropped to {edge} voxels around a nodule")
    loader, sampler = cfg.train_dataloader, cfg.train_dataloader.sampler
    share = 1.0
    if sampler.type.endswith("MultiSourceSampler"):
        share = sampler.source_ratio[0] / sum(sampler.source_ratio)
    if scale.batch_size and round(scale.batch_size / share) != loader.batch_size:
        size = round(scale.batch_size / share)
        changes.append(
            f"batch of {size} ({scale.batch_size} labeled) instead of {loader.batch_size}"
        )
        loader.batch_size = size
        if "batch_size" in sampler:
            sampler.batch_size = size


def _point_at(dataset: ConfigDict, handful: Handful, ann_file: str) -> None:
    dataset.update(
        data_root=f"{handful.data_root}/",
        ann_file=ann_file,
        data_prefix=dict(volume="volumes/"),
    )
    for key in ("indices", "hidden_ann_file"):
        dataset.pop(key, None)


def _shorten(cfg: Config, scale: Scale, batch_size: int, changes: list[str]) -> None:
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        loader.num_workers, loader.persistent_workers = 0, False
    if "max_iters" in cfg.train_cfg:
        length = f"{cfg.train_cfg.max_iters} iterations"
    else:
        length = f"{cfg.train_cfg.max_epochs} epochs"
    changes.append(f"{scale.iters} iterations instead of {length}")
    if cfg.train_dataloader.sampler.type == "DefaultSampler":
        # mmengine waits for two seconds after each epoch, which has only a few batches here.
        cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=True)
    cfg.train_cfg = dict(
        type="IterBasedTrainLoop", max_iters=scale.iters, val_interval=2 * scale.iters
    )
    # No validation; the rehearsal tests after training.
    cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    schedulers = []
    for scheduler in cfg.get("param_scheduler") or []:
        if scheduler.get("by_epoch", True):
            # A rehearsal ends before the first epoch of the original config.
            continue
        warm_up = max(1, scale.iters // 4)
        if scheduler["type"] == "LinearLR" and scheduler["end"] > warm_up:
            changes.append(f"warm-up over {warm_up} instead of {scheduler['end']} iterations")
            scheduler["end"] = warm_up
        if scheduler.get("T_max", 0) > scale.iters:
            changes.append(f"{scheduler['type']} over {scale.iters} iterations")
            scheduler["T_max"] = scale.iters
        if min(scheduler.get("milestones", [0])) >= scale.iters:
            continue
        schedulers.append(scheduler)
    cfg.param_scheduler = schedulers
    wrapper = cfg.optim_wrapper
    base = cfg.get("auto_scale_lr", {}).get("base_batch_size", batch_size)
    size = cfg.train_dataloader.batch_size
    if base != size:
        # Linear scaling for SGD, square root for optimizers that normalize the gradient.
        adaptive = wrapper.optimizer.type.startswith("Adam")
        factor = math.sqrt(size / base) if adaptive else size / base
        changes.append(
            f"learning rate {wrapper.optimizer.lr * factor:.3g} instead of "
            f"{wrapper.optimizer.lr:g} for a batch of {size} instead of {base}"
        )
        wrapper.optimizer.lr *= factor
    # An infinite max_norm logs the gradient norm without clipping.
    wrapper.setdefault("clip_grad", dict(max_norm=math.inf))
    for hook in cfg.get("custom_hooks") or []:
        if hook["type"] in ("TeacherEMAHook", "MeanTeacherMiningHook"):
            own = hook.get("momentum", 0.001)
            momentum = max(own, min(10 / scale.iters, 0.5))
            changes.append(f"EMA momentum {momentum:.3g} instead of {own:g}")
            hook["momentum"] = momentum
            # The schedule of a rehearsal does not lower the learning rate.
            hook.pop("allow_lr_decay", None)
        if hook.get("begin_mining_iter"):
            hook["begin_mining_iter"] = min(hook["begin_mining_iter"], scale.iters // 2)
    cfg.log_processor = dict(type="LogProcessor", window_size=50, by_epoch=False)
    hooks = cfg.default_hooks
    hooks.checkpoint = dict(type="CheckpointHook", interval=-1, save_last=False)
    hooks.logger = dict(type="LoggerHook", interval=20)
    for name in ("visualization", "checkpoint_check"):
        hooks.pop(name, None)


def _without_download(cfg: Config, changes: list[str]) -> None:
    for path, part in _parts(cfg.model, "model"):
        init = part.get("init_cfg") or {}
        if not isinstance(init, dict) or init.get("type") != "Pretrained":
            continue
        source = str(init["checkpoint"])
        if are_weights_local(source):
            continue
        part["init_cfg"] = None
        sentence = f"{path} is randomly initialized, since {source} is not on this machine"
        # Frozen norms fit only pretrained weights: with random weights, activations grow from layer
        # to layer until the loss is infinite.
        for key, free in (("norm_eval", False), ("frozen_stages", -1)):
            if part.get(key, free) != free:
                sentence += f"; {key}={free} instead of {part[key]}"
                part[key] = free
        changes.append(sentence)


def _parts(part: Any, path: str) -> Iterator[tuple[str, dict]]:
    if isinstance(part, dict):
        yield path, part
        for key, value in part.items():
            yield from _parts(value, f"{path}.{key}")
    elif isinstance(part, (list, tuple)):
        for index, value in enumerate(part):
            yield from _parts(value, f"{path}.{index}")
