"""Splits of LUNA16: labeled and unlabeled training scans, and test scans."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["Luna16Splits", "ranked"]

# FocalMix: 533 of 888 scans for training, 25, 50 or 100 of them labeled, 400 others unlabeled.
_TRAIN_SHARE = 0.6
_TRAIN, _LABELED, _UNLABELED = 533, (25, 50, 100), 400


def ranked(uids: Iterable[str], seed: int) -> list[str]:
    """Return scans in a random order that depends only on the seed.

    They are sorted by the SHA-256 digest of ``{seed}:{uid}``. The order of two scans does not
    depend on other scans, on the machine, or on library versions.
    """
    return sorted(uids, key=lambda uid: hashlib.sha256(f"{seed}:{uid}".encode()).digest())


@dataclass(frozen=True)
class Luna16Splits:
    """Numbers of scans in each list.

    In the order of :func:`ranked`, the first ``train`` scans are for training and the next ``test``
    scans for testing. The labeled scans are the first training scans, so that the labeled lists are
    nested. The unlabeled scans follow the largest labeled list, so that they are the same for all
    labeled lists. Scans are drawn with and without nodules.

    Args:
        train: Number of training scans.
        test: Number of test scans.
        labeled: Ascending numbers of labeled scans.
        unlabeled: Number of unlabeled scans.
    """

    train: int
    test: int
    labeled: tuple[int, ...]
    unlabeled: int

    @classmethod
    def resolve(
        cls,
        total: int,
        train: int | None = None,
        test: int | None = None,
        labeled: Sequence[int] | None = None,
        unlabeled: int | None = None,
    ) -> Luna16Splits:
        """Create the numbers, with defaults for those that are None.

        Args:
            total: Number of all scans.
            train: Number of training scans, by default 60 % (533 of 888).
            test: Number of test scans, by default all others.
            labeled: Numbers of labeled scans, by default 25, 50 and 100 of 533 training scans, or
                proportionally fewer.
            unlabeled: Number of unlabeled scans, by default 400 or all remaining training scans.

        Raises:
            InputError: The numbers need more scans than there are.
        """
        if train is None:
            train = round(_TRAIN_SHARE * total) if test is None else total - test
        test = total - train if test is None else test
        if train < 1 or test < 0 or train + test > total:
            raise InputError(
                f"the split has train={train} and test={test}; expected a sum of up to {total} "
                "scans, with one or more for training"
            )
        if labeled is None:
            labeled = [max(1, round(number * train / _TRAIN)) for number in _LABELED]
        labeled = tuple(sorted({int(number) for number in labeled}))
        most = labeled[-1] if labeled else 0
        if labeled and not 1 <= labeled[0] <= most <= train:
            raise InputError(f"the split has labeled={labeled}; expected numbers from 1 to {train}")
        left = train - most
        if unlabeled is None:
            unlabeled = min(_UNLABELED, left)
        if not 0 <= unlabeled <= left:
            raise InputError(
                f"the split has unlabeled={unlabeled}; expected a number from 0 to {left}, since "
                f"{most} of {train} training scans are labeled"
            )
        return cls(train, test, labeled, unlabeled)

    def lists(self, uids: Iterable[str], seed: int) -> dict[str, list[str]]:
        """Return the scans of all annotation files by the names of the files.

        Args:
            uids: All scans, including those that cannot be converted.
            seed: Random seed of the order.
        """
        order = ranked(uids, seed)
        most = self.labeled[-1] if self.labeled else 0
        lists = {
            f"train_{self.train}": order[: self.train],
            f"test_{self.test}": order[self.train : self.train + self.test],
        }
        lists.update({f"labeled_{number}": order[:number] for number in self.labeled})
        lists[f"unlabeled_{self.unlabeled}"] = order[most : most + self.unlabeled]
        return lists
