"""Orientation: whole axes change places, world positions and boxes stay what they were."""

import itertools

import numpy as np
import pytest

from mmdet_lesion.structures import Orientation, Volume

RNG = np.random.default_rng(0)


def signed_permutations():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, axes] * signs


def tilted(matrix, degrees=20):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ matrix


@pytest.mark.parametrize("tilt", [0, 20])
@pytest.mark.parametrize("matrix", signed_permutations())
def test_every_direction(matrix, tilt):
    array = RNG.integers(0, 1000, (3, 4, 5)).astype(np.int16)
    matrix = tilted(matrix, tilt)
    volume = Volume(array, (1.0, 2.0, 3.0), (7, -8, 9), tuple(matrix.ravel()))
    orientation = Orientation.of(volume)
    turned = orientation.apply(volume)
    # Its axes now run along the patient's.
    assert (np.diag(np.reshape(turned.direction, (3, 3))) > 0.9).all()
    assert np.shares_memory(turned.array, array)
    # A voxel keeps value and place.
    box = np.array([[1.0, 2, 0, 2, 3, 1]])
    (original,) = orientation.boxes_to_original(box)
    x, y, z = original[:3].astype(int)
    assert array[z, y, x] == turned.array[0, 2, 1]
    assert (original[3:] - original[:3] == 1).all()
    np.testing.assert_allclose(
        volume.voxel_to_world([[x, y, z]]), turned.voxel_to_world([[1, 2, 0]]), atol=1e-9
    )
    np.testing.assert_array_equal(orientation.boxes_to_turned(original), box)


def test_a_flipped_axial_scan():
    volume = Volume(np.zeros((10, 6, 8), np.int16), direction=(-1, 0, 0, 0, -1, 0, 0, 0, -1))
    orientation = Orientation.of(volume)
    assert orientation.axes == (0, 1, 2)
    assert orientation.flips == (True, True, True)
    assert orientation.slices_to_original([0, 3]).tolist() == [9, 6]
    boxes = orientation.boxes_to_original([[0, 0, 0, 2, 3, 4]])
    assert boxes.tolist() == [[6, 3, 6, 8, 6, 10]]


def test_slices_of_a_coronal_scan_run_along_its_y():
    # x to the left, rows downwards, slices to the back.
    volume = Volume(np.zeros((10, 6, 8), np.int16), direction=(1, 0, 0, 0, 0, 1, 0, -1, 0))
    orientation = Orientation.of(volume)
    assert orientation.slice_axis == 1
    assert orientation.apply(volume).shape == (6, 10, 8)
    assert orientation.slices_to_original(0) == 5
