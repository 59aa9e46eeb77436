import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures.hu_window import apply_hu_window, check_hu_window


def test_ends_of_the_hu_window():
    hu = np.array([-2000, -1024, 3071, 32767], dtype=np.int16)
    gray = apply_hu_window(hu, (-1024, 3071))
    assert gray.dtype == np.float32
    np.testing.assert_allclose(gray, [0, 0, 255, 255], atol=1e-4)
    assert hu[0] == -2000


def test_linear_within_the_hu_window():
    hu = np.array([-175, 50, 275], dtype=np.int16)
    np.testing.assert_allclose(apply_hu_window(hu, (-175.0, 275.0)), [0, 127.5, 255], atol=1e-4)


@pytest.mark.parametrize("window", [(3, 3), (5, 1), (1, 2, 3)])
def test_invalid_hu_window(window):
    with pytest.raises(InputError, match="LoadVolumeSlices has hu_window="):
        check_hu_window("LoadVolumeSlices", window)
