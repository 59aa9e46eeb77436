import numpy as np
import pytest

from mmdet_lesion.datasets.transforms import LoadVolumeSlices
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import save_volume
from mmdet_lesion.structures import Geometry, Volume
from mmdet_lesion.structures.hu_window import apply_hu_window

WHOLE = (-32768, 32767)


def test_whole_volume(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    results = LoadVolumeSlices()(dict(img_path=str(tiny_root / "volumes" / f"{name}.b2nd")))
    expected = apply_hu_window(tiny_arrays[name], (-1024, 3071)).transpose(1, 2, 0)
    assert results["img"].shape == (32, 32, 6)
    np.testing.assert_array_equal(results["img"], expected)
    assert results["img_shape"] == results["ori_shape"] == (32, 32)
    # Packing does not copy the volume.
    assert results["img"].transpose(2, 0, 1).flags.c_contiguous


def test_slice_range_with_repeated_ends(tiny_root, tiny_arrays):
    name = "000002_01_01_001-006"
    path = str(tiny_root / "volumes" / f"{name}.b2nd")
    results = LoadVolumeSlices()(dict(img_path=path, slice_range=(-2, 2)))
    expected = apply_hu_window(tiny_arrays[name][[0, 0, 0, 1]], (-1024, 3071)).transpose(1, 2, 0)
    np.testing.assert_array_equal(results["img"], expected)
    assert results["slice_inds"] == [0, 1, 2, 3]
    assert results["geometry"]["shape"] == [6, 32, 32]


def loaded_hu(results):
    low, high = WHOLE
    return results["img"].transpose(2, 0, 1) / 255 * (high - low) + low


def test_equals_resampling_in_z(tmp_path):
    rng = np.random.default_rng(0)
    for thickness in (0.6, 1.0, 1.25, 2.0, 2.5, 3.0, 5.0, 10.0):
        hu = rng.integers(-1024, 3071, (int(rng.integers(1, 40)), 6, 5)).astype(np.int16)
        volume = Volume(hu, (0.7, 0.7, thickness))
        save_volume(tmp_path / "a.b2nd", volume)
        published = Geometry(hu.shape, (0.35, 0.35, thickness)).to_dict()
        instances = [dict(slice_index=z) for z in range(len(hu))]
        sample = dict(
            img_path=str(tmp_path / "a.b2nd"), published_geometry=published, instances=instances
        )
        results = LoadVolumeSlices(hu_window=WHOLE)(sample)
        expected = volume.resample((0.7, 0.7, 2.0))
        assert results["img"].shape == (6, 5, expected.shape[0])
        np.testing.assert_allclose(loaded_hu(results), expected.array, atol=0.6)
        assert results["published_geometry"] == published
        assert Geometry.from_dict(results["geometry"]) == expected.geometry
        assert results["slice_inds"] == list(range(expected.shape[0]))
        assert (results["thickness"], results["spacing"]) == (2.0, (0.7, 0.7, 2.0))
        moved = np.array([one["slice_index"] for one in results["instances"]])
        distances = abs(moved * 2.0 - np.arange(len(hu)) * thickness)
        assert (distances <= 1.0 + 1e-9).all()
        # The data list is not modified.
        assert instances == [dict(slice_index=z) for z in range(len(hu))]


def test_keep_thick(tmp_path):
    hu = np.random.default_rng(0).integers(-1024, 3071, (7, 6, 5)).astype(np.int16)
    for thickness, kept in ((5.0, 5.0), (1.0, 2.0)):
        save_volume(tmp_path / "a.b2nd", Volume(hu, (0.7, 0.7, thickness)))
        results = LoadVolumeSlices(keep_thick=True)(dict(img_path=str(tmp_path / "a.b2nd")))
        expected = apply_hu_window(hu[:: int(kept / thickness)], (-1024, 3071)).transpose(1, 2, 0)
        np.testing.assert_array_equal(results["img"], expected)
        assert results["thickness"] == results["geometry"]["spacing"][2] == kept


def test_slice_ranges_are_parts_of_the_whole_volume(tmp_path):
    hu = np.random.default_rng(0).integers(-1024, 3071, (9, 6, 5)).astype(np.int16)
    save_volume(tmp_path / "a.b2nd", Volume(hu, (0.7, 0.7, 2.5)))
    sample = dict(img_path=str(tmp_path / "a.b2nd"))
    whole = LoadVolumeSlices()(dict(sample))["img"]
    assert whole.shape[2] == 11
    part = LoadVolumeSlices()(dict(sample, slice_range=(-2, 14), slice_inds=[3, 4]))
    repeated = np.clip(np.arange(-2, 14), 0, 10)
    np.testing.assert_array_equal(part["img"], whole[:, :, repeated])
    assert part["slice_inds"] == [3, 4]


def test_spacing_differs_from_the_volume(tmp_path):
    save_volume(tmp_path / "a.b2nd", Volume(np.zeros((3, 4, 4), np.int16), (1, 1, 5)))
    with pytest.raises(InputError, match="has slices every 5 mm, but its 'spacing' .* is 2 mm"):
        LoadVolumeSlices()(dict(img_path=str(tmp_path / "a.b2nd"), spacing=(1.0, 1.0, 2.0)))
