"""Functions shared by the metrics: conversion and deduplication of samples, and a warning."""

from __future__ import annotations

from typing import Any

import numpy as np
from mmengine.logging import MMLogger

from mmdet_lesion.errors import InputError

from ..functional import FROCResult

__all__ = ["deduplicate", "to_numpy", "warn_without_detections"]


def to_numpy(values: Any) -> np.ndarray:
    """Convert a tensor of any precision, a box type, an array or a list to an array."""
    values = getattr(values, "tensor", values)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    return np.asarray(values)


def warn_without_detections(result: FROCResult) -> None:
    """Log a warning if there is no detection.

    Scores that are not finite give none either, which ``FiniteOutputsHook`` reports.
    """
    if not result.counts["detections"]:
        MMLogger.get_current_instance().warning(
            "there is no detection: no score reaches score_thr of test_cfg"
        )


def deduplicate(
    results: list[dict], metric: str, volume: tuple[str, str], ground_truth: tuple[str, str]
) -> list[dict]:
    """Keep one result per volume, since a distributed sampler repeats some volumes.

    Args:
        results: Results of all processes.
        metric: Name of the metric for messages.
        volume: Word for a volume in messages, and the key of its name.
        ground_truth: Word for its lesions in messages, and the key of its ground truth.

    Returns:
        The results, sorted by name.

    Raises:
        InputError: There is no result, or a volume has two different ground truths.
    """
    (what, name), (lesions, key) = volume, ground_truth
    if not results:
        raise InputError(f"{metric} received no {what}; expected at least one data sample")
    found: dict[str, dict] = {}
    for result in results:
        known = found.setdefault(result[name], result)
        if not np.array_equal(known[key], result[key]):
            raise InputError(
                f"{what} {result[name]!r} has two ground truths, of {len(known[key])} and "
                f"{len(result[key])} {lesions}; expected one"
            )
    return [found[each] for each in sorted(found)]
