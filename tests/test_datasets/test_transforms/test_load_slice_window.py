import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import LoadSliceWindow, apply_window
from mmdet_lesion.errors import InputError

NAME = "000001_01_01_010-021"


@pytest.mark.parametrize("index, slices", [(5, range(1, 10)), (1, [0, 0, 0, 0, 1, 2, 3, 4, 5])])
def test_window_around_the_key_slice(tiny_root, tiny_arrays, index, slices):
    results = dict(img_path=str(tiny_root / "volumes" / f"{NAME}.b2nd"), slice_index=index)
    results = LoadSliceWindow()(results)
    expected = apply_window(tiny_arrays[NAME][list(slices)], (-1024, 3071)).transpose(1, 2, 0)
    assert results["img"].dtype == np.float32
    np.testing.assert_array_equal(results["img"], expected)
    assert results["img_shape"] == results["ori_shape"] == (40, 48)
    assert results["scale_factor"] == (1.0, 1.0)


def test_end_of_a_volume_shorter_than_the_window(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    path = str(tiny_root / "volumes" / f"{name}.b2nd")
    image = LoadSliceWindow(num_slices=3, window=(-175, 275))(dict(img_path=path, slice_index=5))
    expected = apply_window(tiny_arrays[name][[4, 5, 5]], (-175, 275))
    np.testing.assert_array_equal(image["img"], expected.transpose(1, 2, 0))
    assert LoadSliceWindow()(dict(img_path=path, slice_index=2))["img"].shape == (32, 32, 9)


@pytest.mark.parametrize("num_slices", [0, 4, -1])
def test_odd_number_of_slices(num_slices):
    with pytest.raises(InputError, match=f"num_slices={num_slices}; expected an odd"):
        LoadSliceWindow(num_slices=num_slices)


def test_missing_volume(tmp_path):
    path = str(tmp_path / "none.b2nd")
    with pytest.raises(InputError, match=r"none\.b2nd is not there; .*dataset_converters"):
        LoadSliceWindow()(dict(img_path=path, slice_index=0))


def test_file_that_is_no_volume(tmp_path):
    path = tmp_path / "broken.b2nd"
    path.write_bytes(b"not a volume at all")
    with pytest.raises(InputError, match=r"broken\.b2nd"):
        LoadSliceWindow()(dict(img_path=str(path), slice_index=0))
