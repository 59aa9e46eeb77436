import json

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Grid, Volume, resampled_shape


def grid(spacing=(0.7, 0.9, 5.0), store=(0.8, 0.8, 2.0), shape=(7, 50, 60)):
    return Grid.resampled(shape, spacing, store)


@pytest.mark.parametrize(
    ('n', 'spacing', 'store', 'expected'),
    [(5, 1.0, 1.0, 5), (5, 1.0, 2.0, 3), (6, 1.0, 2.0, 4), (1, 5.0, 2.0, 1), (2, 5.0, 2.0, 4),
     (64, 0.8, 0.8, 64), (11, 0.1 + 0.2, 0.3, 11)],
)  # fmt: skip
def test_resampled_shape(n, spacing, store, expected):
    shape = resampled_shape((n, 1, 1), (1.0, 1.0, spacing), (1.0, 1.0, store))
    assert shape == (expected, 1, 1)


def test_published_pixels_are_counted_from_one_and_inclusively():
    same = Grid.identity((3, 10, 10), (1, 1, 1))
    # Published pixels 3 to 5 are the array columns 2, 3, 4: the edges 2 to 5.
    np.testing.assert_array_equal(same.boxes_to_store([[3, 4, 5, 4]]), [[2, 3, 5, 4]])
    np.testing.assert_array_equal(same.points_to_store([[3, 4]]), [[2.5, 3.5]])


def test_the_first_voxels_centre_stays():
    finer = grid(spacing=(1.0, 1.0, 1.0), store=(0.5, 0.5, 0.5))
    # Published pixel 1 has its centre in store column 0, pixel 2 in store column 2.
    np.testing.assert_allclose(finer.points_to_store([[1, 2]]), [[0.5, 2.5]])
    np.testing.assert_allclose(finer.boxes_to_store([[1, 1, 1, 1]]), [[-0.5, -0.5, 1.5, 1.5]])


def test_a_painted_box_is_found_where_the_grid_says():
    array = np.zeros((3, 60, 60), np.int16)
    array[:, 19:40, 9:30] = 1000  # published pixels x 10 to 30, y 20 to 40
    volume = Volume(array, (0.7, 0.9, 1.0)).resample((0.25, 0.25, 1.0))
    moved = Grid.resampled(array.shape, (0.7, 0.9, 1.0), (0.25, 0.25, 1.0))
    assert moved.store_shape == volume.shape
    rows, columns = np.nonzero(volume.array[1] >= 500)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    np.testing.assert_allclose(moved.boxes_to_store([[10, 20, 30, 40]])[0], found, atol=1)


@pytest.mark.parametrize("spacing", [(0.7, 0.9, 5.0), (0.3, 1.7, 0.25), (0.8, 0.8, 2.0)])
def test_coordinates_come_back(spacing):
    there = grid(spacing)
    rng = np.random.default_rng(0)
    boxes = rng.uniform(1, 512, (200, 4))
    back = there.boxes_to_published(there.boxes_to_store(boxes))
    np.testing.assert_allclose(back, boxes, rtol=0, atol=1e-12 * 512)
    points = boxes[:, :2]
    back = there.points_to_published(there.points_to_store(points))
    np.testing.assert_allclose(back, points, rtol=0, atol=1e-12 * 512)
    z = np.arange(7)
    np.testing.assert_allclose(there.slices_to_published(there.slices_to_store(z)), z, atol=1e-12)


def test_no_boxes():
    assert grid().boxes_to_store(np.empty((0, 4))).shape == (0, 4)
    assert grid().boxes_to_published([]).shape == (0, 4)


def test_nearest_store_slice_rounds_half_down_and_stays_inside():
    thin = grid(spacing=(1, 1, 1.0), store=(1, 1, 2.0), shape=(8, 4, 4))
    assert thin.nearest_store_slice(np.arange(8)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    thick = grid(spacing=(1, 1, 5.0), store=(1, 1, 2.0), shape=(3, 4, 4))
    assert thick.nearest_store_slice([0, 1, 2]).tolist() == [0, 2, 5]
    assert int(thick.nearest_store_slice(99)) == thick.store_shape[0] - 1
    assert int(thick.nearest_store_slice(-3)) == 0


def test_a_tie_is_a_tie_in_spite_of_rounding():
    odd = grid(spacing=(1, 1, 0.3), store=(1, 1, 0.2), shape=(40, 4, 4))
    positions = np.arange(1, 40, 2)  # 1.5, 4.5, …
    assert odd.nearest_store_slice(positions).tolist() == [int(1.5 * z - 0.5) for z in positions]


def test_3d_boxes_of_the_store_in_the_array():
    there = Grid((11, 21, 31), (2.0, 1.0, 0.5), (6, 11, 31), (2.0, 2.0, 1.0))
    # The centre of the first voxel stays: edge 0.5 is 0.5 on both grids.
    (box,) = there.boxes3d_to_array([[0.5, 0.5, 0.5, 3, 4, 5]])
    assert box.tolist() == [0.5, 0.5, 0.5, 3, 7.5, 9.5]


def test_json_and_back():
    there = grid()
    assert Grid.from_dict(json.loads(json.dumps(there.to_dict()))) == there


@pytest.mark.parametrize(
    ('shape', 'spacing'),
    [((0, 1, 1), (1, 1, 1)), ((1, 1), (1, 1, 1)), ((1, 1, 1), (1, 0, 1)),
     ((1, 1, 1), (1, float('nan'), 1)), ((1, 1, 1), (1, 1, -2))],
)  # fmt: skip
def test_a_grid_needs_positive_numbers(shape, spacing):
    with pytest.raises(InputError, match="expected three positive numbers"):
        Grid.identity(shape, spacing)


def test_a_missing_entry_is_named():
    values = grid().to_dict()
    del values["store_shape"]
    with pytest.raises(KeyError, match="store_shape"):
        Grid.from_dict(values)
