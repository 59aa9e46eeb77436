import itertools
import json

import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import (
    CUBE_SYMMETRIES,
    Geometry,
    Volume,
    published_to_voxels,
    resampled_shape,
    voxels_to_published,
)

# The x axis points to -y in the world, y to x, z to -z.
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
GEOMETRY = Geometry((4, 5, 6), (0.5, 1.0, 2.0), (10.0, 20.0, -30.0), TURNED)


def signed_permutations():
    for axes in itertools.permutations(range(3)):
        for signs in itertools.product((1, -1), repeat=3):
            yield np.eye(3)[:, axes] * signs


def tilted(matrix, degrees):
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]]) @ matrix


def test_published_pixels_are_one_based_and_inclusive():
    # Published pixels 3 to 5 are the array columns 2 to 4, with edges 2 and 5.
    np.testing.assert_array_equal(published_to_voxels([[3, 4, 5, 4]]), [[2, 3, 5, 4]])
    np.testing.assert_array_equal(voxels_to_published([[2, 3, 5, 4]]), [[3, 4, 5, 4]])
    assert published_to_voxels(np.empty((0, 4))).shape == (0, 4)


@pytest.mark.parametrize(
    ("n", "spacing", "new", "expected"),
    [(5, 1.0, 1.0, 5), (5, 1.0, 2.0, 3), (6, 1.0, 2.0, 4), (1, 5.0, 2.0, 1), (2, 5.0, 2.0, 4),
     (64, 0.8, 0.8, 64), (11, 0.1 + 0.2, 0.3, 11)],
)  # fmt: skip
def test_resampled_shape(n, spacing, new, expected):
    shape = resampled_shape((n, 1, 1), (1.0, 1.0, spacing), (1.0, 1.0, new))
    assert shape == (expected, 1, 1)


def test_points_have_expected_values():
    # The center of voxel (x, y, z) = (2, 1, 3): -2 * 0.5 in y, +1 in x, -3 * 2 in z.
    (world,) = GEOMETRY.points_to_world([[2.5, 1.5, 3.5]])
    np.testing.assert_allclose(world, (11.0, 19.0, -36.0))
    np.testing.assert_allclose(GEOMETRY.points_to_voxels(world), [[2.5, 1.5, 3.5]])


def test_world_coordinates_equal_those_of_sitk():
    image = Volume.with_geometry(np.zeros(GEOMETRY.shape), GEOMETRY).to_sitk()
    points = np.random.default_rng(0).uniform(-3, 9, (20, 3))
    expected = [image.TransformContinuousIndexToPhysicalPoint((p - 0.5).tolist()) for p in points]
    np.testing.assert_allclose(GEOMETRY.points_to_world(points), expected, atol=1e-12)
    np.testing.assert_allclose(GEOMETRY.points_to_voxels(expected), points, atol=1e-12)


def test_boxes_around_spheres():
    (box,) = GEOMETRY.boxes_around_spheres([[11.0, 19.0, -36.0, 4.0]])
    np.testing.assert_allclose(box, (2.5 - 4, 1.5 - 2, 3.5 - 1, 2.5 + 4, 1.5 + 2, 3.5 + 1))
    np.testing.assert_allclose(GEOMETRY.centers_to_world([box]), [[11.0, 19.0, -36.0]])
    corners = GEOMETRY.corners_to_world([box])[0]
    np.testing.assert_allclose(np.ptp(corners, axis=0), [4, 4, 4])
    np.testing.assert_allclose(corners.mean(axis=0), [11.0, 19.0, -36.0])
    assert GEOMETRY.boxes_around_spheres(np.empty((0, 4))).shape == (0, 6)


def test_contains():
    # z extends from the outer face of voxel 0, at -29, down to -37; x from 9.5 to 14.5.
    points = [[10, 20, -29.1], [10, 20, -28.9], [14.4, 20, -30], [14.6, 20, -30], [10, 20, -37.1]]
    assert GEOMETRY.contains(points).tolist() == [True, False, True, False, False]


def test_resampling_keeps_the_center_of_the_first_voxel():
    coarse = Geometry((3, 50, 60), (1.0, 1.0, 1.0), (1.0, 2.0, 3.0), TURNED)
    fine = coarse.resample((0.5, 0.5, 0.25))
    assert (fine.shape, fine.origin, fine.direction) == ((9, 99, 119), coarse.origin, TURNED)
    np.testing.assert_allclose(coarse.points_to(fine, [[0.5, 1.5]]), [[0.5, 2.5]])
    np.testing.assert_allclose(coarse.boxes_to(fine, [[0, 0, 1, 1]]), [[-0.5, -0.5, 1.5, 1.5]])
    (box,) = fine.boxes_to(coarse, [[0.5, 0.5, 0.5, 3, 4, 8.5]])
    assert box.tolist() == [0.5, 0.5, 0.5, 1.75, 2.25, 2.5]


def test_resampling_keeps_world_coordinates():
    rng = np.random.default_rng(0)
    for _ in range(20):
        old = Geometry((7, 50, 60), rng.uniform(0.3, 5, 3), rng.normal(size=3), TURNED)
        new = old.resample(rng.uniform(0.3, 5, 3))
        points = rng.uniform(0, 50, (30, 3))
        moved = old.points_to(new, points)
        np.testing.assert_allclose(
            new.points_to_world(moved), old.points_to_world(points), atol=1e-9
        )
        np.testing.assert_allclose(new.points_to(old, moved), points, atol=1e-9)
        z = np.arange(7)
        np.testing.assert_allclose(new.slices_to(old, old.slices_to(new, z)), z, atol=1e-9)
        np.testing.assert_allclose(
            old.points_to(new, [[0, 0, 3.5]])[0, 2] - 0.5, old.slices_to(new, 3)
        )
    assert old.boxes_to(new, np.empty((0, 4))).shape == (0, 4)


def test_resampled_voxels_agree_with_resampled_boxes():
    array = np.zeros((3, 60, 60), np.int16)
    array[:, 19:40, 9:30] = 1000
    volume = Volume(array, (0.7, 0.9, 1.0))
    resampled = volume.resample((0.25, 0.25, 1.0))
    assert resampled.geometry == volume.geometry.resample((0.25, 0.25, 1.0))
    rows, columns = np.nonzero(resampled.array[1] >= 500)
    found = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    box = volume.geometry.boxes_to(resampled.geometry, [[9, 19, 30, 40]])[0]
    np.testing.assert_allclose(box, found, atol=1)


def test_nearest_slice_rounds_half_down_within_the_volume():
    def nearest(depth, spacing, new, indices):
        old = Geometry((depth, 4, 4), (1, 1, spacing))
        return old.nearest_slice(old.resample((1, 1, new)), indices).tolist()

    assert nearest(8, 1.0, 2.0, np.arange(8)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert nearest(3, 5.0, 2.0, [0, 1, 2]) == [0, 2, 5]
    assert nearest(3, 5.0, 2.0, 99) == 5
    assert nearest(3, 5.0, 2.0, -3) == 0
    # Floating-point error of 0.3 / 0.2 does not affect ties: 1.5, 4.5, …
    ties = np.arange(1, 40, 2)
    assert nearest(40, 0.3, 0.2, ties) == [int(1.5 * z - 0.5) for z in ties]


def test_crop_keeps_world_coordinates():
    part = GEOMETRY.crop((1, -2, 3), (7, 8, 9))
    assert part.shape == (7, 8, 9)
    points = np.array([[0.5, 0.5, 0.5], [3.0, 7.25, 2.0]])
    np.testing.assert_allclose(
        part.points_to_world(points), GEOMETRY.points_to_world(points + (1, -2, 3))
    )


def test_permutation_keeps_world_coordinates():
    indices = np.stack(np.meshgrid(*map(np.arange, GEOMETRY.shape), indexing="ij"))
    for symmetry in CUBE_SYMMETRIES:
        old = symmetry.apply(indices).reshape(3, -1).T[:, ::-1] + 0.5
        geometry = GEOMETRY.permute(symmetry)
        new = np.stack(np.indices(geometry.shape)).reshape(3, -1).T[:, ::-1] + 0.5
        np.testing.assert_allclose(
            geometry.points_to_world(new), GEOMETRY.points_to_world(old), atol=1e-9
        )


def test_axes_are_permuted_to_those_of_the_patient():
    for matrix, degrees in itertools.product(signed_permutations(), (0, 20)):
        direction = tilted(matrix, degrees).ravel()
        geometry = Geometry((3, 4, 5), (1.0, 2.0, 3.0), (7, -8, 9), direction)
        permuted = geometry.permute(geometry.symmetry_to_patient())
        assert (np.diag(permuted.matrix) > 0.9).all()
        assert geometry.is_axis_aligned == (degrees == 0)
    # A tilt of less than a twentieth of a millimeter over 500 mm counts as rounding.
    assert Geometry(
        (1, 1, 1), direction=tilted(np.eye(3), np.degrees(5e-5)).ravel()
    ).is_axis_aligned


def test_json_round_trip():
    assert Geometry.from_dict(json.loads(json.dumps(GEOMETRY.to_dict()))) == GEOMETRY
    with pytest.raises(InputError, match="geometry has no 'origin'"):
        Geometry.from_dict({"shape": [1, 1, 1], "spacing": [1, 1, 1]})


@pytest.mark.parametrize(
    ("bad", "message"),
    [(dict(shape=(0, 1, 1)), "shape is .* positive"), (dict(shape=(1, 1)), "shape is .* 3 finite"),
     (dict(spacing=(1, 1, 0)), "spacing is .* positive"), (dict(origin=(1, 2)), "origin is"),
     (dict(origin=(1, 2, float("nan"))), "origin is .* finite"),
     (dict(direction=(1,) * 9), "direction is .* rotation")],
)  # fmt: skip
def test_invalid_values_are_rejected(bad, message):
    with pytest.raises(InputError, match=message):
        Geometry(**{"shape": (1, 1, 1), **bad})


def test_resampling_to_an_invalid_spacing_is_rejected():
    with pytest.raises(InputError, match=r"spacing is \(1.0, 0.0, 1.0\); expected three positive"):
        GEOMETRY.resample((1, 0, 1))
