from collections import Counter

import pytest

from mmdet_lesion.converters.patient_split import check_shares, split_patients
from mmdet_lesion.errors import InputError

SHARES = (0.7, 0.1, 0.2)


@pytest.mark.parametrize(
    ("number", "shares", "expected"),
    [
        (10, SHARES, (7, 1, 2)),
        (6, SHARES, (4, 1, 1)),
        # Every set has a patient, at the cost of the largest.
        (3, SHARES, (1, 1, 1)),
        (5, SHARES, (3, 1, 1)),
        (100, SHARES, (70, 10, 20)),
        (7, (0.8, 0, 0.2), (6, 0, 1)),
        (2, (1, 0, 0), (2, 0, 0)),
    ],
)
def test_numbers_of_patients(number, shares, expected):
    names = [f"p{index}" for index in range(number)]
    for seed in range(5):
        counts = Counter(split_patients(names, [], shares, seed).values())
        assert tuple(counts[name] for name in ("train", "val", "test")) == expected


def test_healthy_patients_are_divided_separately():
    ill, healthy = [f"i{n}" for n in range(10)], [f"h{n}" for n in range(20)]
    split = split_patients(ill, healthy, SHARES, 3)
    for names, expected in ((ill, (7, 1, 2)), (healthy, (14, 2, 4))):
        counts = Counter(split[name] for name in names)
        assert tuple(counts[name] for name in ("train", "val", "test")) == expected
    # The order of the names does not matter, the seed does.
    assert split_patients(ill[::-1], healthy[::-1], SHARES, 3) == split
    assert split_patients(ill, healthy, SHARES, 4) != split
    assert set(split_patients(["a", "b", "c"], ["h"], SHARES, 0)) == {"a", "b", "c", "h"}


def test_too_few_patients():
    with pytest.raises(InputError, match="2 patients have lesions; expected at least 3"):
        split_patients(["a", "b"], ["h"] * 10, SHARES, 0)


@pytest.mark.parametrize("shares", [(0.7, 0.1), (0.7, 0.1, 0.1), (0, 0.5, 0.5), (1.2, -0.4, 0.2)])
def test_invalid_shares(shares):
    with pytest.raises(InputError, match="expected the shares of training, validation and test"):
        check_shares(shares)
