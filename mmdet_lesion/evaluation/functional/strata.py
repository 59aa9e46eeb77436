"""FROC metrics for groups of lesions."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from .matching import select_lesions
from .result import FROCResult, froc_result

__all__ = ["stratify_froc"]


def stratify_froc(result: FROCResult, labels: Sequence[Hashable]) -> dict[Hashable, FROCResult]:
    """Split a result by the labels of the lesions.

    A stratum counts only its own lesions. Detections that hit only other lesions are ``ignored``,
    so that the false positives are the same in all strata.

    Args:
        result: Result of a protocol.
        labels: Label of each lesion, in the order of the ground truth (scan by scan, then slice by
            slice, then row by row), shape (L,).

    Returns:
        Results by label, in the order in which the labels appear.

    Raises:
        ValueError: The number of labels is not the number of lesions.
    """
    num_lesions = len(result.matches.lesion_scans)
    if len(labels) != num_lesions:
        raise ValueError(
            f"there are {len(labels)} labels for {num_lesions} lesions; expected one for each"
        )
    numbers: dict[Hashable, int] = {}
    codes = np.array([numbers.setdefault(label, len(numbers)) for label in labels], dtype=np.int64)
    return {
        label: froc_result(
            select_lesions(result.matches, codes == number),
            protocol=result.protocol,
            settings=result.settings,
            fp_rates=result.fp_rates,
            mean_rates=result.mean_rates,
            rule=result.rule,
            scans=result.scans,
        )
        for label, number in numbers.items()
    }
