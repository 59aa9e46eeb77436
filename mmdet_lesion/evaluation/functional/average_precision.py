"""Average precision of Pascal VOC 2010 and later."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

__all__ = ["average_precision"]


def average_precision(recall: ArrayLike, precision: ArrayLike) -> float:
    """Compute the area under the precision envelope over all points.

    Args:
        recall: Recall after each detection, in descending order of score, shape (N,).
        precision: Precision after each detection, shape (N,).

    Returns:
        The area; 0 without detections, NaN if the recall is undefined (no object at all).

    Raises:
        ValueError: The two differ in length, or are not one-dimensional.
    """
    recall = np.asarray(recall, dtype=np.float64)
    precision = np.asarray(precision, dtype=np.float64)
    if recall.ndim != 1 or recall.shape != precision.shape:
        raise ValueError(
            f"recall has the shape {recall.shape} and precision {precision.shape}; "
            "expected one recall and one precision per detection"
        )
    if np.isnan(recall).any():
        return float("nan")
    recall = np.concatenate(([0.0], recall, [1.0]))
    precision = np.concatenate(([0.0], precision, [0.0]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.flatnonzero(recall[1:] != recall[:-1])
    return float(np.sum((recall[steps + 1] - recall[steps]) * envelope[steps + 1]))
