import numpy as np

from mmdet_lesion.datasets.transforms import LoadVolume, apply_window


def test_whole_volume(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    results = LoadVolume()(dict(img_path=str(tiny_root / "volumes" / f"{name}.b2nd")))
    expected = apply_window(tiny_arrays[name], (-1024, 3071)).transpose(1, 2, 0)
    assert results["img"].shape == (32, 32, 6)
    np.testing.assert_array_equal(results["img"], expected)
    assert results["img_shape"] == results["ori_shape"] == (32, 32)
    # Packing then takes the volume as it is.
    assert results["img"].transpose(2, 0, 1).flags.c_contiguous


def test_some_slices_with_repeated_ends(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    path = str(tiny_root / "volumes" / f"{name}.b2nd")
    results = LoadVolume()(dict(img_path=path, slice_range=(-2, 2)))
    expected = apply_window(tiny_arrays[name][[0, 0, 0, 1]], (-1024, 3071)).transpose(1, 2, 0)
    np.testing.assert_array_equal(results["img"], expected)
