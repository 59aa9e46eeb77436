"""Configs that train, validate and test on converted scans as they stand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["DatasetFacts", "ready_configs"]


@dataclass(frozen=True)
class _Length:
    """Length of a training.

    Args:
        step: Samples of a step.
        passes: Passes through the training samples.
        fewest: Lowest number of steps.
        most: Highest number of steps.
    """

    step: int
    passes: int
    fewest: int
    most: int


# 56 passes are those of 80,000 steps of 16 on the 22,900 key slices of DeepLesion, 800 those of
# FocalMix on LUNA16. The networks for CPUs train within minutes.
_LENGTHS = {
    ("slices", False): _Length(4, 56, 1000, 80000),
    ("slices", True): _Length(2, 10, 700, 1500),
    ("volumes", False): _Length(8, 800, 1000, 80000),
    ("volumes", True): _Length(4, 800, 700, 2000),
}
# Learning rates of a step: 0.02 is for 16 slices, and for 4 in configs/phantom.
_RATES = {False: 0.005, True: 0.01}
_STRIDE = 4
# Share of the lesions that are smaller or larger than all anchors.
_TAIL = 5


@dataclass(frozen=True)
class DatasetFacts:
    """What the configs depend on.

    Args:
        kind: ``'slices'`` or ``'volumes'``.
        small: Whether the network is that of ``configs/phantom``, for CPUs.
        spacing: Spacing ``(x, y, z)`` of the training data in mm; 0 stands for that of the scan.
        samples: Number of training slices or scans.
        sides: Side of a square or cube of the size of each training box, in pixels or voxels.
        sets: Sets that have an annotation file, among ``train``, ``val``, ``test`` and
            ``unlabeled``.
    """

    kind: str
    small: bool
    spacing: tuple[float, float, float]
    samples: int
    sides: Sequence[float]
    sets: Sequence[str]


def ready_configs(facts: DatasetFacts) -> dict[str, str]:
    """Return the text of each config by the name of its file, which lies beside ``annotations``."""
    if facts.kind == "slices":
        return {"faster_rcnn.py": _faster_rcnn(facts), "mean_teacher.py": _mean_teacher(facts)}
    texts = {"supervised.py": _supervised(facts)}
    if "unlabeled" in facts.sets:
        texts["focalmix.py"] = _focalmix(facts)
    return texts


def anchor_sides(sides: Sequence[float], number: int, least: float) -> list[float]:
    """Return sides of anchors for boxes of given sides.

    Args:
        sides: Sides of the boxes.
        number: Number of anchors.
        least: Smallest side of an anchor.

    Returns:
        Sides in a geometric sequence from the 5th to the 95th percentile, over a factor of 4 or
        more.
    """
    low, high = np.percentile(sides, (_TAIL, 100 - _TAIL))
    middle = np.sqrt(low * high)
    low, high = min(low, middle / 2), max(high, middle * 2)
    low = max(low, least)
    return np.geomspace(low, max(high, 4 * low), number).tolist()


def _iterations(facts: DatasetFacts) -> int:
    length = _LENGTHS[facts.kind, facts.small]
    wanted = length.passes * facts.samples / length.step
    # A number that five validations divide.
    return int(-(-min(max(wanted, length.fewest), length.most) // 100) * 100)


_HEAD = """\
# {title}
# Written by tools/dataset_converters/masks.py, which never overwrites it. The base config is at
# mmdet_lesion/.mim/configs/{base}.
_base_ = "mmdet_lesion::{base}"

data_root = "{{{{ fileDirname }}}}/"  # the folder of this file
"""


def _loaders(facts: DatasetFacts, *more: str) -> str:
    """Return the data loaders; without a validation set, there is no validation."""
    settings = ["data_root=data_root", 'ann_file="annotations/train.json"', *more]
    lines = ["train_dataloader = dict("]
    lines += ["    dataset=dict(", *(f"        {setting}," for setting in settings), "    )", ")"]
    if "val" in facts.sets:
        lines.append(f"val_dataloader = {_test_loader('val')}")
    else:
        lines.append("val_cfg = val_dataloader = val_evaluator = None")
    # Detection reads the test pipeline, so that there is a loader without a test set, too.
    test = "val" if "val" in facts.sets and "test" not in facts.sets else "test"
    lines.append(f"test_dataloader = {_test_loader(test)}")
    return "\n".join(lines) + "\n"


def _test_loader(name: str) -> str:
    return f'dict(dataset=dict(data_root=data_root, ann_file="annotations/{name}.json"))'


def _schedule(facts: DatasetFacts, metric: str, more: str = "") -> str:
    total = _iterations(facts)
    best = f'save_best="{metric}", rule="greater"' if "val" in facts.sets else "save_best=None"
    return (
        f"train_cfg = dict(max_iters={total}, val_interval={total // 5})\n{more}"
        f"default_hooks = dict(\n    checkpoint=dict(interval={total // 5}, {best})\n)\n"
    )


def _inference(facts: DatasetFacts) -> str:
    return f"inference = dict(spacing={tuple(facts.spacing)})\n"


def _faster_rcnn(facts: DatasetFacts) -> str:
    folder = "phantom/faster_rcnn_phantom.py" if facts.small else "uld/faster_rcnn_deeplesion.py"
    size = "small Faster R-CNN, for CPUs," if facts.small else "Faster R-CNN"
    # Slices of healthy scans have no box.
    more = ["filter_cfg=dict(filter_empty_gt=False)"]
    if facts.small:
        more.append('sources=("full",)')
    sides = anchor_sides(facts.sides, 5, 8)
    scales = ", ".join(f"{side / _STRIDE:.3g}" for side in sides)
    step = _LENGTHS["slices", facts.small].step
    lines = [
        _HEAD.format(title=f"Nine-slice {size} on {facts.samples} slices.", base=folder),
        _loaders(facts, *more),
        f"# Anchors of {sides[0]:.0f} to {sides[-1]:.0f} pixels, as the training lesions.\n"
        f"model = dict(rpn_head=dict(anchor_generator=dict(scales=[{scales}])))\n",
        f"# Steps of {step} slices in one process.\n",
    ]
    rate = (
        f"optim_wrapper = dict(optimizer=dict(lr={_RATES[facts.small]}))\n"
        f"auto_scale_lr = dict(base_batch_size={step})\n"
    )
    lines.append(_schedule(facts, "froc/mean_sensitivity", rate))
    lines.append(
        "# The average of the weights over training is validated, tested and saved.\n"
        'ema = dict(ema_type="MomentumAnnealingEMA", momentum=0.002, gamma=5)\n'
        'custom_hooks = [dict(type="TeacherEMAHook", **ema)]\n'
    )
    lines.append(_inference(facts))
    return "".join(lines)


def _mean_teacher(facts: DatasetFacts) -> str:
    begin = _iterations(facts) // 2
    return (
        "# The same as a mean teacher, which mines lesions that the masks lack.\n"
        '_base_ = "faster_rcnn.py"\n\n'
        "custom_hooks = [\n"
        f'    dict(type="MeanTeacherMiningHook", begin_mining_iter={begin}, **_base_.ema)\n'
        "]\n"
    )


def _supervised(facts: DatasetFacts) -> str:
    folder = (
        "phantom/supervised_luna16_phantom.py"
        if facts.small
        else "focalmix/supervised_luna16_100.py"
    )
    size = "small 3D detector, for CPUs," if facts.small else "3D detector"
    sides = anchor_sides(facts.sides, 4, 3)
    total = _iterations(facts)
    return "".join(
        (
            _HEAD.format(title=f"Supervised {size} on {facts.samples} scans.", base=folder),
            _loaders(facts),
            f"# Anchors of {sides[0]:.0f} to {sides[-1]:.0f} voxels, as the training lesions.\n",
            "model = dict(bbox_head=dict(anchor_generator=dict(sizes=("
            f"{', '.join(f'{side:.3g}' for side in sides)}))))\n",
            _schedule(
                facts,
                "froc/cpm",
                "param_scheduler = [\n"
                f'    dict(type="CosineAnnealingLR", by_epoch=False, T_max={total}, eta_min=0)\n'
                "]\n",
            ),
            _inference(facts),
        )
    )


def _focalmix(facts: DatasetFacts) -> str:
    batch = 2 * _LENGTHS["volumes", facts.small].step
    return f"""\
# The same as FocalMix, which also trains on the scans without masks.
_base_ = "supervised.py"

labeled = dict(
    type="Luna16Dataset",
    data_root=_base_.data_root,
    ann_file="annotations/train.json",
    pipeline=_base_.train_pipeline,
)
unlabeled = dict(labeled, ann_file="annotations/unlabeled.json", labeled=False)
model = dict(
    batch_pipeline=[
        dict(type="ImageLevelMixUp", eta=0.2),
        dict(type="ObjectLevelMixUp", eta=0.2),
    ]
)
train_dataloader = dict(
    batch_size={batch},
    sampler=dict(
        _delete_=True, type="MultiSourceSampler", batch_size={batch}, source_ratio=[1, 1]
    ),
    dataset=dict(_delete_=True, type="ConcatDataset", datasets=[labeled, unlabeled]),
)
"""
