import pytest

from mmdet_lesion.converters.luna16_splits import Luna16Splits, ranked
from mmdet_lesion.errors import InputError

UIDS = [f"1.2.{i}" for i in range(888)]


def test_defaults_are_the_numbers_of_the_paper():
    assert Luna16Splits.resolve(888) == Luna16Splits(533, 355, (25, 50, 100), 400)


def test_defaults_are_proportional_for_fewer_scans():
    assert Luna16Splits.resolve(60) == Luna16Splits(36, 24, (2, 3, 7), 29)
    assert Luna16Splits.resolve(1) == Luna16Splits(1, 0, (1,), 0)
    assert Luna16Splits.resolve(60, train=40, labeled=(10, 5)) == Luna16Splits(40, 20, (5, 10), 30)
    assert Luna16Splits.resolve(60, test=20).train == 40


def test_lists_are_nested_and_disjoint():
    lists = Luna16Splits.resolve(888).lists(UIDS, seed=0)
    assert list(lists) == [
        *("train_533", "test_355", "labeled_25", "labeled_50", "labeled_100", "unlabeled_400"),
    ]
    sets = {name: set(uids) for name, uids in lists.items()}
    for name, uids in lists.items():
        assert len(uids) == len(sets[name]) == int(name.split("_")[1])
    assert sets["labeled_25"] < sets["labeled_50"] < sets["labeled_100"] < sets["train_533"]
    assert sets["unlabeled_400"] < sets["train_533"]
    assert not sets["unlabeled_400"] & sets["labeled_100"]
    assert sets["train_533"] | sets["test_355"] == set(UIDS)


def test_order_depends_only_on_seed_and_name():
    order = ranked(UIDS, 0)
    assert ranked(reversed(UIDS), 0) == order != ranked(UIDS, 1)
    assert ranked(UIDS[:40], 0) == [uid for uid in order if uid in UIDS[:40]]
    # Literal values, since published splits must not change between versions.
    assert ranked(["a", "b", "c", "d"], 0) == ["d", "a", "c", "b"]


@pytest.mark.parametrize(
    ('total', 'numbers', 'message'),
    [(10, dict(train=11), 'train=11 and test=-1'),
     (10, dict(train=8, test=3), 'expected a sum of up to 10 scans'),
     (10, dict(train=5, labeled=(2, 6)), r'labeled=\(2, 6\); expected numbers from 1 to 5'),
     (10, dict(train=5, labeled=(0, 2)), 'from 1 to 5'),
     (10, dict(train=5, labeled=(3,), unlabeled=3), 'from 0 to 2, since 3 of 5 training')],
)  # fmt: skip
def test_invalid_numbers_are_rejected(total, numbers, message):
    with pytest.raises(InputError, match=message):
        Luna16Splits.resolve(total, **numbers)
