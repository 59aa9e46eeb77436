import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.evaluation.lesion_groups import (
    in_order,
    interval_labels,
    longer_diameters,
    longer_sides,
    nodule_size_labels,
    patients_of,
    size_labels,
    type_labels,
)


def test_limits_of_groups():
    assert size_labels([9.99, 10, 30, 30.01]) == ["< 10 mm", "10-30 mm", "10-30 mm", "> 30 mm"]
    assert nodule_size_labels([5.9, 6, 8, 8.1]) == ["< 6 mm", "6-8 mm", "6-8 mm", "> 8 mm"]
    assert interval_labels([1, 2.5, 2.5000001, 5]) == ["<= 2.5 mm"] * 3 + ["> 2.5 mm"]
    assert type_labels([5, 1, -1, 9]) == ["lung", "bone", "unknown", "unknown"]


def test_order_of_groups():
    assert in_order(size_labels([40, 5, 20, 6])) == ["< 10 mm", "10-30 mm", "> 30 mm"]
    assert in_order(type_labels([-1, 8, 5])) == ["lung", "pelvis", "unknown"]


def test_groups_by_size():
    assert longer_sides([[1, 1, 10, 20]], [(2.0, 0.5)]) == [20.0]
    assert longer_diameters([[0, 0, 3, 4, 0, 0, 0, 2]], [(1.0, 1.0)]) == [5.0]
    assert longer_diameters([[0, 0, 3, 0, 0, 0, 0, 2]], [(1.0, 2.0)]) == [4.0]


def test_patients_from_names():
    names = ["000001_02_03_004-010", "x/000002_01_01_109.png", "000003_01_01/109.png", "4_1_1"]
    assert patients_of(names, "f") == ["000001", "000002", "000003", "4"]
    with pytest.raises(InputError, match="truth.pkl contains the name 'scan7'"):
        patients_of(["1_1_1", "scan7"], "truth.pkl")
