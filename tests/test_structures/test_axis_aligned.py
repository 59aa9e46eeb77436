import itertools

import numpy as np
import pytest

from mmdet_lesion.structures import Volume, is_axis_aligned, to_axis_aligned

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SIGNED_PERMUTATIONS = [
    np.diag(signs)[list(order)]
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1.0, -1.0), repeat=3)
]


def ramp(matrix, spacing=(0.5, 1.0, 2.0), shape=(6, 7, 8)):
    """A volume whose voxels hold 1000 + 3x - 5y + 2z of their world position."""
    volume = Volume(np.zeros(shape), spacing, (10.0, -20.0, 30.0), np.ravel(matrix))
    z, y, x = (axis.ravel() for axis in np.indices(shape))
    world = volume.voxel_to_world(np.stack((x, y, z), axis=1))
    volume.array = (1000 + world @ (3, -5, 2)).reshape(shape)
    return volume


@pytest.mark.parametrize("matrix", SIGNED_PERMUTATIONS)
def test_voxels_keep_their_place_in_the_world(matrix):
    volume = ramp(matrix)
    spacing = [np.abs(row) @ volume.spacing for row in matrix]
    result = to_axis_aligned(volume, spacing, 0)
    assert result.direction == IDENTITY
    assert sorted(result.array.ravel()) == sorted(volume.array.ravel())
    z, y, x = (axis.ravel() for axis in np.indices(result.shape))
    world = result.voxel_to_world(np.stack((x, y, z), axis=1))
    np.testing.assert_allclose(result.array.ravel(), 1000 + world @ (3, -5, 2))


def test_flipped_and_resampled():
    result = to_axis_aligned(ramp(np.diag([-1.0, -1.0, 1.0])), (1.0, 1.0, 1.0), 0)
    assert result.shape == (11, 7, 5)
    z, y, x = np.indices((11, 6, 3)).reshape(3, -1)
    world = result.voxel_to_world(np.stack((x, y, z), axis=1))
    np.testing.assert_allclose(
        result.array[:11, :6, :3].ravel(), 1000 + world @ (3, -5, 2), rtol=1e-5
    )


def test_a_rounded_tilt_counts_as_none_and_a_real_one_is_resampled():
    def turned(angle):
        c, s = np.cos(angle), np.sin(angle)
        return [[c, -s, 0], [s, c, 0], [0, 0, 1]]

    assert is_axis_aligned(ramp(turned(5e-5)))
    volume = ramp(turned(0.1))
    assert not is_axis_aligned(volume)
    result = to_axis_aligned(volume, (0.5, 0.5, 1.0), -1)
    assert result.direction == IDENTITY
    inside = result.array != -1
    assert 0.5 < inside.mean() < 1
    z, y, x = np.indices(result.shape).reshape(3, -1)
    world = result.voxel_to_world(np.stack((x, y, z), axis=1))
    source = volume.world_to_voxel(world)
    between = ((source > 0) & (source < np.array(volume.shape[::-1]) - 1)).all(axis=1)
    # The grid holds all of the volume, as many mm³ of it.
    assert between.sum() * 0.25 > 0.8 * (3.5 * 6 * 10)
    expected = 1000 + world[between] @ (3, -5, 2)
    np.testing.assert_allclose(result.array.ravel()[between], expected, rtol=1e-5)


def test_whole_numbers_are_rounded():
    volume = ramp(np.diag([1.0, -1.0, 1.0]))
    exact = to_axis_aligned(volume, (0.3, 0.7, 0.9), 0).array
    volume.array = volume.array.astype(np.int16)
    result = to_axis_aligned(volume, (0.3, 0.7, 0.9), 0)
    assert result.array.dtype == np.int16
    assert np.abs(result.array - exact).max() < 1.5
