"""Which lesions of a volume are annotated."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ..errors import InputError

__all__ = ["DEEPLESION", "Missing", "check_missing", "mark_lesions"]

DEEPLESION: Literal["deeplesion"] = "deeplesion"
"""Lesions are left out as in DeepLesion."""

Missing = float | Literal["deeplesion"]
"""Probability that a lesion is not annotated, or :data:`DEEPLESION`."""

# Fits to the 1,070 test sub-volumes of Lesion Harvester with an official annotation
# (``Revised-Test1071``): of n lesions n ** 0.43 are annotated on average, and in volumes with one
# annotated lesion its probability is proportional to its size to the power of 1.3.
_MARKED_EXPONENT, _SIZE_EXPONENT = 0.43, 1.3


def check_missing(missing: Missing) -> None:
    """Check the setting ``missing``.

    Raises:
        InputError: It is neither a fraction nor ``'deeplesion'``.
    """
    if missing != DEEPLESION and not (isinstance(missing, (int, float)) and 0 <= missing <= 1):
        raise InputError(f"missing is {missing}; expected a fraction in [0, 1] or 'deeplesion'")


def mark_lesions(diameters: ArrayLike, missing: Missing, rng: np.random.Generator) -> np.ndarray:
    """Choose the annotated lesions of a volume, at least one.

    Args:
        diameters: Diameters in mm, shape (n,) with n of at least 1.
        missing: Probability that a lesion is not annotated, at random. With ``'deeplesion'`` few
            lesions are annotated however many there are (1 of 1, 1.3 of 2, 2 of 5, 2.7 of 10 on
            average), and large ones rather than small ones.
        rng: Random generator.

    Returns:
        Whether each lesion is annotated, shape (n,).
    """
    diameters = np.asarray(diameters, dtype=float)
    count = len(diameters)
    if missing == DEEPLESION:
        number = int(count**_MARKED_EXPONENT + rng.random())
        weights = diameters**_SIZE_EXPONENT
        marked = np.zeros(count, dtype=bool)
        marked[rng.choice(count, number, replace=False, p=weights / weights.sum())] = True
        return marked
    marked = rng.random(count) >= missing
    if not marked.any():
        marked[rng.integers(count)] = True
    return marked
