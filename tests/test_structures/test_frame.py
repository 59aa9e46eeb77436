import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Frame, Volume

# x runs to world -y, y to world x, z to world -z.
TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
FRAME = Frame((4, 5, 6), (0.5, 1.0, 2.0), (10.0, 20.0, -30.0), TURNED)


def test_points_by_hand():
    # The centre of voxel (x, y, z) = (2, 1, 3): -2 * 0.5 in y, +1 in x, -3 * 2 in z.
    (world,) = FRAME.points_to_world([[2.5, 1.5, 3.5]])
    np.testing.assert_allclose(world, (11.0, 19.0, -36.0))
    np.testing.assert_allclose(FRAME.points_to_voxels(world), [[2.5, 1.5, 3.5]])


def test_agrees_with_the_volume():
    volume = Volume(np.zeros((4, 5, 6)), FRAME.spacing, FRAME.origin, TURNED)
    points = np.random.default_rng(0).normal(size=(9, 3)) * 5
    assert Frame.of(volume) == FRAME
    np.testing.assert_allclose(FRAME.points_to_world(points + 0.5), volume.voxel_to_world(points))
    np.testing.assert_allclose(FRAME.points_to_voxels(points), volume.world_to_voxel(points) + 0.5)


def test_boxes_around_spheres():
    (box,) = FRAME.boxes_around([[11.0, 19.0, -36.0, 4.0]])
    np.testing.assert_allclose(box, (2.5 - 4, 1.5 - 2, 3.5 - 1, 2.5 + 4, 1.5 + 2, 3.5 + 1))
    np.testing.assert_allclose(FRAME.box_centres([box]), [[11.0, 19.0, -36.0]])
    assert FRAME.boxes_around(np.empty((0, 4))).shape == (0, 6)


def test_what_lies_inside():
    # z runs from the outer face of voxel 0, at -29, down to -37; x from 9.5 to 14.5.
    points = [[10, 20, -29.1], [10, 20, -28.9], [14.4, 20, -30], [14.6, 20, -30], [10, 20, -37.1]]
    assert FRAME.contains(points).tolist() == [True, False, True, False, False]


def test_a_crop_shifts_voxels_and_keeps_the_world():
    part = FRAME.crop((1, -2, 3), (7, 8, 9))
    assert part.shape == (7, 8, 9)
    points = np.array([[0.5, 0.5, 0.5], [3.0, 7.25, 2.0]])
    np.testing.assert_allclose(
        part.points_to_world(points), FRAME.points_to_world(points + (1, -2, 3))
    )


@pytest.mark.parametrize("flips", [(0, 0, 0), (1, 0, 0), (0, 1, 1), (1, 1, 1)])
@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
def test_permuted_voxels_keep_their_place_in_the_world(axes, flips):
    indices = np.stack(np.meshgrid(*map(np.arange, FRAME.shape), indexing="ij"), axis=-1)
    moved = np.flip(indices.transpose(*axes, 3), axis=[axis for axis in range(3) if flips[axis]])
    frame = FRAME.permute(axes, [bool(flip) for flip in flips])
    assert frame.shape == moved.shape[:3]
    for new in np.ndindex(*frame.shape):
        old = moved[new]
        np.testing.assert_allclose(
            frame.points_to_world(np.array(new[::-1]) + 0.5),
            FRAME.points_to_world(old[::-1] + 0.5),
            atol=1e-9,
        )


def test_goes_through_json():
    assert Frame.from_dict(FRAME.to_dict()) == FRAME
    with pytest.raises(KeyError, match="no 'origin'"):
        Frame.from_dict({"shape": [1, 1, 1], "spacing": [1, 1, 1]})


@pytest.mark.parametrize(
    "bad",
    [dict(shape=(0, 1, 1)), dict(spacing=(1, 1, 0)), dict(origin=(1, 2)),
     dict(origin=(1, 2, float("nan")))],
)  # fmt: skip
def test_wrong_geometry(bad):
    with pytest.raises(InputError, match="Frame"):
        Frame(**{"shape": (1, 1, 1), **bad})
