"""What metrics of whole volumes do with data samples and with what they left of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmdet_lesion.errors import InputError

__all__ = ["one_of_each", "to_numpy"]


def to_numpy(values: Any) -> np.ndarray:
    """Tensors (mixed precision and box types included), arrays and lists."""
    values = getattr(values, "tensor", values)
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.double() if values.is_floating_point() else values
    return np.asarray(values)


def one_of_each(
    results: list[dict], metric: str, volume: tuple[str, str], truth: tuple[str, str]
) -> list[dict]:
    """Results by name, each once: a distributed sampler gives some volumes to two processes.

    Args:
        results: Of all processes.
        metric: Name of the metric, for messages.
        volume: What a volume is called, and the key of its name.
        truth: What its lesions are called, and the key of its ground truth.

    Raises:
        InputError: There is none, or one volume came with two ground truths.
    """
    (what, name), (lesions, key) = volume, truth
    if not results:
        raise InputError(f"{metric} got no {what}; expected at least one data sample")
    found: dict[str, dict] = {}
    for result in results:
        known = found.setdefault(result[name], result)
        if not np.array_equal(known[key], result[key]):
            raise InputError(
                f"{what} {result[name]!r} came with two ground truths of {len(known[key])} and "
                f"{len(result[key])} {lesions}; expected one"
            )
    return [found[each] for each in sorted(found)]
