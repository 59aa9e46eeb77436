import itertools

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Volume

TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def ramp(shape=(5, 6, 7)):
    return np.arange(np.prod(shape), dtype=np.int16).reshape(shape)


def test_sitk_round_trip():
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


def test_resampling_interpolates_between_slices():
    array = np.zeros((2, 3, 3), np.int16)
    array[1] = 100
    result = Volume(array, (1, 1, 5.0), direction=TURNED).resample((1.0, 1.0, 2.0))
    # Positions 0, 2, 4 and 6 mm; the last is beyond the last center.
    assert result.array[:, 1, 1].tolist() == [0, 40, 80, 100]
    assert result.spacing == (1.0, 1.0, 2.0)


def test_integers_are_rounded_not_truncated():
    array = np.array([-10, -9], np.int16).reshape(2, 1, 1)
    result = Volume(array, (1, 1, 1.0)).resample((1.0, 1.0, 0.25))
    assert result.array.ravel().tolist() == [-10, -10, -10, -9, -9]  # -9.5 rounds to even
    assert result.array.dtype == np.int16


def test_resampling_in_slabs_equals_resampling_at_once():
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


def test_resampling_to_the_same_spacing_copies():
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
def test_invalid_volumes_are_rejected(changes, message):
    with pytest.raises(InputError, match=message):
        Volume(**{"array": ramp(), **changes})


def test_color_image_is_rejected():
    with pytest.raises(InputError, match="channels"):
        Volume.from_sitk(sitk.Image(4, 4, 4, sitk.sitkVectorUInt8))


def test_resampling_to_an_invalid_spacing_is_rejected():
    with pytest.raises(InputError, match="expected three positive"):
        Volume(ramp()).resample((1, 1, 0))


IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SIGNED_PERMUTATIONS = [
    np.diag(signs)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def world_positions(volume):
    """Return the world positions of all voxels in the order of the flattened array."""
    z, y, x = np.indices(volume.shape).reshape(3, -1)
    return volume.geometry.points_to_world(np.stack((x, y, z), axis=1) + 0.5)


def world_ramp(matrix, spacing=(0.5, 1.0, 2.0), shape=(6, 7, 8)):
    """Return a volume with values 1000 + 3x - 5y + 2z at world position (x, y, z)."""
    volume = Volume(np.zeros(shape), spacing, (10.0, -20.0, 30.0), np.ravel(matrix))
    volume.array = (1000 + world_positions(volume) @ (3, -5, 2)).reshape(shape)
    return volume


def test_voxels_are_reordered_to_world_axes():
    for matrix in SIGNED_PERMUTATIONS:
        volume = world_ramp(matrix)
        spacing = [np.abs(row) @ volume.spacing for row in matrix]
        result = volume.resample_to_world_axes(spacing, 0)
        assert result.direction == IDENTITY
        assert sorted(result.array.ravel()) == sorted(volume.array.ravel())
        world = world_positions(result)
        np.testing.assert_allclose(result.array.ravel(), 1000 + world @ (3, -5, 2))


def test_permuting_shares_memory():
    volume = world_ramp(SIGNED_PERMUTATIONS[7])
    permuted = volume.permute(volume.geometry.symmetry_to_patient())
    assert np.shares_memory(permuted.array, volume.array)
    world = world_positions(permuted)
    np.testing.assert_allclose(permuted.array.ravel(), 1000 + world @ (3, -5, 2))


def test_oblique_volume_is_resampled_to_its_bounding_box():
    c, s = np.cos(0.1), np.sin(0.1)
    volume = world_ramp([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    result = volume.resample_to_world_axes((0.5, 0.5, 1.0), -1)
    assert result.direction == IDENTITY
    inside = result.array != -1
    assert 0.5 < inside.mean() < 1
    world = world_positions(result)
    source = volume.geometry.points_to_voxels(world) - 0.5
    between = ((source > 0) & (source < np.array(volume.shape[::-1]) - 1)).all(axis=1)
    # The bounding box contains the entire volume.
    assert between.sum() * 0.25 > 0.8 * (3.5 * 6 * 10)
    expected = 1000 + world[between] @ (3, -5, 2)
    np.testing.assert_allclose(result.array.ravel()[between], expected, rtol=1e-5)


def test_integers_are_rounded_when_resampled_to_world_axes():
    volume = world_ramp(np.diag([1.0, -1.0, 1.0]))
    exact = volume.resample_to_world_axes((0.3, 0.7, 0.9), 0).array
    volume.array = volume.array.astype(np.int16)
    result = volume.resample_to_world_axes((0.3, 0.7, 0.9), 0)
    assert result.array.dtype == np.int16
    assert np.abs(result.array - exact).max() < 1.5
