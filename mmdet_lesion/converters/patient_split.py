"""Split of patients into training, validation and test sets."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ..errors import InputError
from .luna16_splits import ranked

__all__ = ["SPLITS", "check_shares", "split_patients"]

SPLITS = ("train", "val", "test")


def check_shares(shares: Sequence[float]) -> tuple[float, float, float]:
    """Check the shares of training, validation and test patients.

    Raises:
        InputError: They are not three numbers from 0 to 1 with the sum 1, or there are no training
            patients.
    """
    values = tuple(float(share) for share in shares)
    valid = len(values) == 3 and all(0 <= share <= 1 for share in values)
    if not valid or not math.isclose(sum(values), 1, abs_tol=1e-6) or not values[0]:
        raise InputError(
            f"the split is {' '.join(f'{share:g}' for share in values)}; expected the shares of "
            "training, validation and test patients, with the sum 1 and the first above 0"
        )
    return values[0], values[1], values[2]


def split_patients(
    with_lesions: Collection[str], healthy: Collection[str], shares: Sequence[float], seed: int
) -> dict[str, str]:
    """Draw the patients of each set.

    Patients with lesions and healthy patients are divided separately. In each set whose share is
    not 0 there is at least one patient with lesions. The order in which patients are drawn depends
    on the seed and their names only.

    Args:
        with_lesions: Patients with a lesion in any scan.
        healthy: Other patients.
        shares: Shares of ``train``, ``val`` and ``test``.
        seed: Random seed.

    Returns:
        The set of each patient, one of ``SPLITS``.

    Raises:
        InputError: There are fewer patients with lesions than sets.
    """
    wanted = sum(share > 0 for share in shares)
    if len(with_lesions) < wanted:
        raise InputError(
            f"{len(with_lesions)} patients have lesions; expected at least {wanted}, one for each "
            "set: convert more scans, or give a set of --split the share 0"
        )
    split: dict[str, str] = {}
    for group, least in ((with_lesions, 1), (healthy, 0)):
        order = ranked(group, seed)
        counts = _counts(len(order), shares, least)
        names = [name for name, count in zip(SPLITS, counts) for _ in range(count)]
        split.update(zip(order, names))
    return split


def _counts(total: int, shares: Sequence[float], least: int) -> list[int]:
    """Round shares to numbers with the sum ``total``, by the largest remainders."""
    exact = [share * total for share in shares]
    # Sums such as 0.7 * 10 must not lose a patient.
    counts = [math.floor(value + 1e-9) for value in exact]
    rest = sorted(range(len(exact)), key=lambda i: counts[i] - exact[i])
    for index in rest[: total - sum(counts)]:
        counts[index] += 1
    for index, share in enumerate(shares):
        if share and counts[index] < least:
            counts[counts.index(max(counts))] -= 1
            counts[index] += 1
    return counts
