import re

import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis import PhantomConfig


@pytest.mark.parametrize(
    ("volumes", "split", "counts"),
    [
        (100, (0.7, 0.15, 0.15), (70, 15, 15)),
        (3, (0.7, 0.15, 0.15), (1, 1, 1)),
        (1, (0.7, 0.15, 0.15), (1, 0, 0)),
        (10, (0.7, 0.15, 0.15), (7, 2, 1)),
        (10, (4, 0, 6), (4, 0, 6)),
        (10, (0.5, 0.0, 0.5), (5, 0, 5)),
    ],
)
def test_split_counts(volumes, split, counts):
    assert PhantomConfig(volumes, split=split).split_counts() == counts


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"volumes": 0}, "volumes is 0; expected at least 1"),
        ({"missing": 1.5}, "missing is 1.5; expected a fraction in [0, 1]"),
        ({"size": 8}, "size is 8; expected at least 32 pixels"),
        ({"diameter": (9.0, 3.0)}, "diameter is 9.0 and 3.0; expected 1.0 <= lowest <= highest"),
        ({"lesion_types": (4, 9)}, "lesion_types is (4, 9); expected numbers from 1 to 8"),
        ({"slices": (100, 200)}, "200 slices do not fit into the body at an interval of 5 mm"),
        ({"split": (5, 5, 5)}, "split is 5 5 5; expected"),
        ({"intervals": ()}, "intervals is (); expected positive mm"),
        ({"seed": -1}, "seed is -1; expected a number of at least 0"),
        ({"noise": -1.0}, "noise is -1.0; expected at least 0 HU"),
    ],
)
def test_invalid_settings(setting, message):
    with pytest.raises(InputError, match=re.escape(message)):
        PhantomConfig(**{"volumes": 10, **setting})


def test_box_padding_is_proportional_to_the_size():
    assert PhantomConfig(1).box_padding == 5.0
    assert PhantomConfig(1, size=128).box_padding == 1.25
