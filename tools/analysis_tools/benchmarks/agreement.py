"""Numerical agreement between a device and the CPU."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import ConcatDataset, Dataset

#: Largest differences of the corners (pixels or voxels) and scores of matching predictions.
SAME_BOX, SAME_SCORE = 0.5, 0.01


def seed_all(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def first_samples(dataset: Dataset) -> dict:
    """Return a batch of the first sample of a dataset, or of each part of a concatenated one."""
    parts = dataset.datasets if isinstance(dataset, ConcatDataset) else [dataset]
    seed_all(0)
    return pseudo_collate([part[0] for part in parts])


@torch.no_grad()
def estimate_norm_statistics(model: nn.Module, batch: dict) -> None:
    """Set the running statistics of all batch norms to those of a batch.

    Without pretrained weights, frozen norms have mean 0 and variance 1; activations then grow from
    layer to layer and overflow in half precision.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    modes = [(module, module.training) for module in model.modules()]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # cumulative average
    features(model, copy.deepcopy(batch))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    for module, training in modes:
        module.training = training


def features(model: nn.Module, batch: dict) -> tuple[Tensor, ...]:
    """Return the feature maps of a detector's neck."""
    data = model.data_preprocessor(dict(batch), True)
    inputs, samples = data["inputs"], data["data_samples"]
    aware = hasattr(model, "_thickness_of")
    context = model._thickness_of(inputs, samples) if aware else contextlib.nullcontext()
    with context:
        return model.extract_feat(inputs)


@contextlib.contextmanager
def full_float32() -> Iterator[None]:
    """Disable TF32 within the context."""
    flags = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [flag.allow_tf32 for flag in flags]
    for flag in flags:
        flag.allow_tf32 = False
    try:
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.allow_tf32 = value


def compare_with_cpu(model: nn.Module, batch: dict, device: str) -> dict[str, float]:
    """Compare a model on a device with the same model on the CPU, in float32.

    Samplers and MixUp draw random numbers on the CPU, so both runs draw the same. Rounding may
    still change which of two proposals with nearly equal scores is kept, which appears as a large
    difference in the losses of the second stage.

    Args:
        model: A detector on the CPU.
        batch: Collated training samples.
        device: The device to compare.

    Returns:
        A dict with the relative differences ``outputs`` (of the heads in evaluation mode, by
        norm), ``losses`` (the largest of any loss in training mode, which ``worst_loss`` names)
        and ``gradients`` (by norm). Of the predictions in evaluation mode, ``matched`` is the
        fraction found on both devices; ``score`` (relative) and ``box`` (pixels or voxels) are the
        largest differences between matched ones.
    """
    results = []
    with full_float32():
        for where in ("cpu", device):
            # Training updates the batch norm statistics, so each run needs its own copy.
            results.append(_run(copy.deepcopy(model).to(where), batch))
    ours, theirs = results
    losses = {
        name: abs(theirs["losses"][name] - value) / max(abs(value), 1e-12)
        for name, value in ours["losses"].items()
    }
    worst = max(losses, key=losses.get)
    return dict(
        outputs=_distance(theirs["outputs"], ours["outputs"]),
        losses=losses[worst],
        worst_loss=worst,
        gradients=_distance(theirs["gradients"], ours["gradients"]),
        **compare_predictions(ours["predictions"], theirs["predictions"]),
    )


def _run(model: nn.Module, batch: dict) -> dict:
    """Return outputs, predictions, losses and gradients, moved to the CPU."""
    head = model.rpn_head if hasattr(model, "rpn_head") else model.bbox_head
    with torch.no_grad():
        model.eval()
        maps = head(features(model, copy.deepcopy(batch)))
        outputs = torch.cat([x.flatten().cpu() for level in maps for x in level])
        seed_all(0)
        found = model.test_step(copy.deepcopy(batch))
    model.train()
    seed_all(0)
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    total, logged = model.parse_losses(model(**data, mode="loss"))
    total.backward()
    gradients = [p.grad.flatten().cpu() for p in model.parameters() if p.grad is not None]
    return dict(
        outputs=outputs,
        predictions=[sample.pred_instances.cpu() for sample in found],
        losses={name: value.item() for name, value in logged.items() if "loss" in name},
        gradients=torch.cat(gradients),
    )


def _distance(found: Tensor, expected: Tensor) -> float:
    found, expected = found.double(), expected.double()
    return float((found - expected).norm() / expected.norm().clamp(min=1e-30))


def compare_predictions(
    ours: list[InstanceData], theirs: list[InstanceData]
) -> dict[str, float | None]:
    """Match the predictions of two runs on the same samples.

    Returns:
        A dict with ``matched``, the fraction of predictions found in both runs, and the largest
        differences between matched ones: relative for ``score``, absolute for ``box``. None where
        a value is undefined.
    """
    total = matched = 0
    scores, boxes = [], []
    for one, other in zip(ours, theirs, strict=True):
        total += len(one) + len(other)
        if not len(one) or not len(other):
            continue
        far = (one.bboxes[:, None] - other.bboxes[None]).abs().amax(dim=2)
        apart = (one.scores[:, None] - other.scores[None]).abs()
        same = (far < SAME_BOX) & (apart < SAME_SCORE)
        matched += int(same.any(dim=1).sum()) + int(same.any(dim=0).sum())
        nearest = far.masked_fill(~same, torch.inf).argmin(dim=1)
        rows = same.any(dim=1).nonzero().flatten()
        relative = apart[rows, nearest[rows]] / one.scores[rows].clamp(min=1e-12)
        scores += relative.tolist()
        boxes += far[rows, nearest[rows]].tolist()
    return dict(
        matched=matched / total if total else None,
        score=max(scores, default=None),
        box=max(boxes, default=None),
    )
