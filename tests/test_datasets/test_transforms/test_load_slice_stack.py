import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import LoadSliceStack
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import save_volume
from mmdet_lesion.structures import Volume
from mmdet_lesion.structures.hu_window import apply_hu_window

NAME = "000001_01_01_010-021"


@pytest.mark.parametrize("index, slices", [(5, range(1, 10)), (1, [0, 0, 0, 0, 1, 2, 3, 4, 5])])
def test_slice_stack_around_the_key_slice(tiny_root, tiny_arrays, index, slices):
    results = dict(img_path=str(tiny_root / "volumes" / f"{NAME}.b2nd"), slice_index=index)
    results = LoadSliceStack()(results)
    expected = apply_hu_window(tiny_arrays[NAME][list(slices)], (-1024, 3071)).transpose(1, 2, 0)
    assert results["img"].dtype == np.float32
    np.testing.assert_array_equal(results["img"], expected)
    assert results["img_shape"] == results["ori_shape"] == (40, 48)
    assert results["scale_factor"] == (1.0, 1.0)


def test_ends_of_the_volume_are_repeated(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    path = str(tiny_root / "volumes" / f"{name}.b2nd")
    image = LoadSliceStack(num_slices=3, hu_window=(-175, 275))(dict(img_path=path, slice_index=5))
    expected = apply_hu_window(tiny_arrays[name][[4, 5, 5]], (-175, 275))
    np.testing.assert_array_equal(image["img"], expected.transpose(1, 2, 0))
    assert LoadSliceStack()(dict(img_path=path, slice_index=2))["img"].shape == (32, 32, 9)


def saved(tmp_path, thickness, depth=40):
    hu = np.random.default_rng(0).integers(-1500, 3500, (depth, 4, 5)).astype(np.int16)
    path = tmp_path / f"{thickness}.b2nd"
    save_volume(path, Volume(hu, (0.7, 0.8, thickness)))
    return hu, str(path)


def test_neighbors_are_interpolated_and_the_key_slice_is_unchanged(tmp_path):
    """Published intervals of DeepLesion: the key slice is neither shifted nor interpolated."""
    rng = np.random.default_rng(1)
    for thickness in (0.25, 0.6, 1.0, 1.25, 2.0, 2.5, 3.75, 5.0, 10.0):
        hu, path = saved(tmp_path, thickness)
        at = np.arange(len(hu)) * thickness
        for index in (0, 39, *rng.integers(0, 40, 4).tolist()):
            results = LoadSliceStack(num_slices=7)(dict(img_path=path, slice_index=index))
            positions = index * thickness + 2.0 * np.arange(-3, 4)
            # np.interp also repeats the ends.
            flat = hu.reshape(len(hu), -1).T.astype(float)
            expected = np.array([np.interp(positions, at, voxel) for voxel in flat])
            expected = apply_hu_window(expected.reshape(4, 5, 7), (-1024, 3071))
            np.testing.assert_allclose(results["img"], expected, atol=1e-3)
            middle = apply_hu_window(hu[index], (-1024, 3071))
            np.testing.assert_array_equal(results["img"][:, :, 3], middle)
            assert results["thickness"] == 2.0
            assert results["spacing"] == (0.7, 0.8, 2.0)


def test_keep_thick(tmp_path):
    for thickness in (2.5, 5.0):
        hu, path = saved(tmp_path, thickness)
        for options in (dict(keep_thick=True), dict(slice_spacing=0)):
            load = LoadSliceStack(num_slices=3, **options)
            results = load(dict(img_path=path, slice_index=7))
            expected = apply_hu_window(hu[6:9], (-1024, 3071)).transpose(1, 2, 0)
            np.testing.assert_array_equal(results["img"], expected)
            assert results["thickness"] == results["spacing"][2] == thickness
    hu, path = saved(tmp_path, 1.0)
    thin = LoadSliceStack(num_slices=3, keep_thick=True)(dict(img_path=path, slice_index=7))
    expected = apply_hu_window(hu[5:10:2], (-1024, 3071)).transpose(1, 2, 0)
    np.testing.assert_array_equal(thin["img"], expected)
    assert thin["thickness"] == 2.0


def test_invalid_slice_index_and_spacing(tmp_path):
    _, path = saved(tmp_path, 2.5)
    for index in (-1, 40):
        with pytest.raises(InputError, match=f"has 40 slices, .*={index}; expected 0 to 39"):
            LoadSliceStack()(dict(img_path=path, slice_index=index))
    with pytest.raises(InputError, match=r"2\.5\.b2nd has slices every 2.5 mm, .* is 2 mm"):
        LoadSliceStack()(dict(img_path=path, slice_index=3, spacing=(0.7, 0.8, 2.0)))
    for spacing in (-1.0, float("nan")):
        with pytest.raises(InputError, match=f"slice_spacing={spacing}; expected a non-negative"):
            LoadSliceStack(slice_spacing=spacing)


@pytest.mark.parametrize("num_slices", [0, 4, -1])
def test_number_of_slices_must_be_odd(num_slices):
    with pytest.raises(InputError, match=f"num_slices={num_slices}; expected an odd"):
        LoadSliceStack(num_slices=num_slices)


def test_missing_volume(tmp_path):
    path = str(tmp_path / "none.b2nd")
    with pytest.raises(InputError, match=r"none\.b2nd does not exist; .*dataset_converters"):
        LoadSliceStack()(dict(img_path=path, slice_index=0))


def test_invalid_volume_file(tmp_path):
    path = tmp_path / "broken.b2nd"
    path.write_bytes(b"not a volume at all")
    with pytest.raises(InputError, match=r"broken\.b2nd"):
        LoadSliceStack()(dict(img_path=str(path), slice_index=0))
