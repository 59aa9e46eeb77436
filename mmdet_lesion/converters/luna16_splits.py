"""Which scans of LUNA16 are trained on, with and without labels, and which are tested on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import InputError

__all__ = ["Luna16Splits", "ranked"]

# FocalMix: 533 of 888 scans to train on, 25, 50 or 100 of them labeled, 400 others unlabeled.
_TRAIN_SHARE = 0.6
_TRAIN, _LABELED, _UNLABELED = 533, (25, 50, 100), 400


def ranked(uids: Iterable[str], seed: int) -> list[str]:
    """Scans in a random order that depends on the seed and on nothing else.

    They are sorted by the SHA-256 digest of ``{seed}:{uid}``: the order of two scans is the same
    whatever others there are, on every machine and with every version of every library.
    """
    return sorted(uids, key=lambda uid: hashlib.sha256(f"{seed}:{uid}".encode()).digest())


@dataclass(frozen=True)
class Luna16Splits:
    """Numbers of scans; the lists follow one another in the order of :func:`ranked`.

    The first ``train`` scans are trained on, the next ``test`` ones are tested on. The first
    ``labeled`` ones of those to train on are labeled, so that 25 are among the 50 and these among
    the 100; the ``unlabeled`` ones come right after the most labeled ones, the same whatever the
    number of labels. Scans are drawn with and without nodules.

    Args:
        train: Scans to train on.
        test: Scans to test on.
        labeled: Numbers of labeled scans, ascending.
        unlabeled: Scans without labels.
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
        """Fill in what is not given.

        Args:
            total: Scans that there are.
            train: By default 60 % (533 of 888).
            test: By default all others.
            labeled: By default 25, 50 and 100 of 533, and as many of fewer in proportion.
            unlabeled: By default 400, or all that are left.

        Raises:
            InputError: There are not as many scans.
        """
        if train is None:
            train = round(_TRAIN_SHARE * total) if test is None else total - test
        test = total - train if test is None else test
        if train < 1 or test < 0 or train + test > total:
            raise InputError(
                f"{train} scans to train on and {test} to test on were asked for; expected at most "
                f"{total} in sum, one or more of them to train on"
            )
        if labeled is None:
            labeled = [max(1, round(number * train / _TRAIN)) for number in _LABELED]
        labeled = tuple(sorted({int(number) for number in labeled}))
        most = labeled[-1] if labeled else 0
        if labeled and not 1 <= labeled[0] <= most <= train:
            raise InputError(
                f"{' '.join(map(str, labeled))} labeled scans were asked for; expected numbers "
                f"from 1 to {train}"
            )
        left = train - most
        if unlabeled is None:
            unlabeled = min(_UNLABELED, left)
        if not 0 <= unlabeled <= left:
            raise InputError(
                f"{unlabeled} unlabeled scans were asked for; expected at most {left}, since "
                f"{most} of {train} are labeled"
            )
        return cls(train, test, labeled, unlabeled)

    def lists(self, uids: Iterable[str], seed: int) -> dict[str, list[str]]:
        """Scans of every annotation file, by its name.

        Args:
            uids: All scans, whether they could be converted or not.
            seed: Seed of the order.
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
