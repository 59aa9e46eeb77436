import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Volume

TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def ramp(shape=(5, 6, 7)):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def test_sitk_and_back():
    volume = Volume(ramp(), (0.5, 0.6, 2.0), (1.0, -2.0, 3.0), TURNED)
    image = volume.to_sitk()
    assert image.GetSize() == (7, 6, 5)
    back = Volume.from_sitk(image)
    np.testing.assert_array_equal(back.array, volume.array)
    assert (back.spacing, back.origin, back.direction) == (
        volume.spacing,
        volume.origin,
        volume.direction,
    )


def test_world_coordinates_are_sitks():
    volume = Volume(ramp(), (0.5, 0.6, 2.0), (1.0, -2.0, 3.0), TURNED)
    image = volume.to_sitk()
    points = np.random.default_rng(0).uniform(-3, 9, (20, 3))
    expected = [image.TransformContinuousIndexToPhysicalPoint(p.tolist()) for p in points]
    np.testing.assert_allclose(volume.voxel_to_world(points), expected, atol=1e-12)
    np.testing.assert_allclose(volume.world_to_voxel(expected), points, atol=1e-12)


def test_resampling_interpolates_between_slices():
    array = np.zeros((2, 3, 3), np.int16)
    array[1] = 100
    result = Volume(array, (1, 1, 5.0), direction=TURNED).resample((1.0, 1.0, 2.0))
    # Positions 0, 2, 4 and, beyond the last centre, 6 mm.
    assert result.array[:, 1, 1].tolist() == [0, 40, 80, 100]
    assert result.spacing == (1.0, 1.0, 2.0)


def test_integers_are_rounded_not_truncated():
    array = np.array([-10, -9], np.int16).reshape(2, 1, 1)
    result = Volume(array, (1, 1, 1.0)).resample((1.0, 1.0, 0.25))
    assert result.array.ravel().tolist() == [-10, -10, -10, -9, -9]  # -9.5 rounds to even
    assert result.array.dtype == np.int16


def test_slabs_do_not_show():
    array = np.random.default_rng(0).integers(-1000, 1000, (30, 8, 9)).astype(np.int16)
    volume = Volume(array, (0.9, 0.7, 2.5), (5.0, -3.0, 11.0), TURNED)
    result = volume.resample((0.8, 0.8, 1.0))
    assert result.shape[0] > 64
    reference = sitk.Resample(
        volume.to_sitk(), result.array.shape[::-1], sitk.Transform(), sitk.sitkLinear,
        volume.origin, (0.8, 0.8, 1.0), TURNED, 0.0, sitk.sitkFloat32, True,
    )  # fmt: skip
    difference = sitk.GetArrayFromImage(reference) - result.array
    assert np.abs(difference).max() <= 0.5 + 1e-3


@pytest.mark.parametrize("shape", [(1, 6, 7), (1, 1, 1), (4, 1, 5)])
def test_single_slices_are_resampled(shape):
    result = Volume(np.full(shape, -700, np.int16), (0.9, 0.9, 5.0)).resample((0.8, 0.8, 2.0))
    assert (result.array == -700).all()
    assert (result.shape[0] == 1) == (shape[0] == 1)


def test_the_same_spacing_copies():
    volume = Volume(ramp(), (0.8, 0.8, 2.0))
    result = volume.resample((0.8, 0.8, 2.0))
    np.testing.assert_array_equal(result.array, volume.array)
    assert not np.shares_memory(result.array, volume.array)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [({'array': np.zeros((2, 2))}, r'\(D, H, W\)'), ({'array': np.zeros((0, 2, 2))}, 'not empty'),
     ({'spacing': (1, 1, 0)}, 'spacing'), ({'spacing': (1, 1)}, 'spacing'),
     ({'origin': (0, 0, float('nan'))}, 'origin'), ({'direction': (1.0,) * 9}, 'direction')],
)  # fmt: skip
def test_what_is_no_volume_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        Volume(**{"array": ramp(), **changes})


def test_a_colour_image_is_refused():
    with pytest.raises(InputError, match="channels"):
        Volume.from_sitk(sitk.Image(4, 4, 4, sitk.sitkVectorUInt8))


def test_a_bad_new_spacing_is_refused():
    with pytest.raises(InputError, match="expected positive mm"):
        Volume(ramp()).resample((1, 1, 0))
