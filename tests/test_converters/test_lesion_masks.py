import numpy as np
import pytest

from mmdet_lesion.converters.lesion_masks import find_lesions
from mmdet_lesion.structures import Geometry

GEOMETRY = Geometry((6, 10, 12), (1.0, 1.0, 2.0), (5.0, -3.0, 10.0))


def labels(*values):
    array = np.zeros(GEOMETRY.shape, dtype=np.int32)
    for label, *where in values:
        array[tuple(where)] = label
    return array


def test_connected_voxels_are_a_lesion():
    array = labels((1, slice(1, 3), slice(2, 5), slice(3, 6)), (1, 3, 5, 6), (1, 5, 9, 11))
    one, other = find_lesions(array, GEOMETRY, instances=False)
    # Voxels that share a corner are connected.
    assert (one.number, one.start, one.voxels) == (1, (1, 2, 3), 19)
    assert (other.number, other.start, other.voxels) == (2, (5, 9, 11), 1)
    assert one.diameter == pytest.approx((6 * 19 * 2 / np.pi) ** (1 / 3))


def test_labels_are_lesions_with_instances():
    array = labels((4, 1, 2, 3), (4, 5, 9, 11), (2, 1, 2, 4))
    found = find_lesions(array, GEOMETRY, instances=True)
    assert [(lesion.number, lesion.voxels) for lesion in found] == [(2, 1), (4, 2)]
    # Without them, different labels that touch are one lesion.
    assert [lesion.voxels for lesion in find_lesions(array, GEOMETRY, False)] == [2, 1]


def test_slices_of_a_lesion():
    array = labels((1, 1, slice(2, 5), 3), (1, 2, 4, slice(3, 9)), (1, 4, 0, 0))
    lesion = find_lesions(array, GEOMETRY, instances=True)[0]
    found = list(lesion.slices())
    assert [(z, box) for z, box, _ in found] == [
        (1, (3, 2, 4, 5)), (2, (3, 4, 9, 5)), (4, (0, 0, 1, 1)),
    ]  # fmt: skip
    assert [plane.shape for _, _, plane in found] == [(3, 1), (1, 6), (1, 1)]
    assert all(plane.all() for _, _, plane in found)


def test_box_in_another_geometry():
    (lesion,) = find_lesions(
        labels((1, slice(1, 3), slice(2, 5), slice(3, 6))), GEOMETRY, instances=False
    )
    np.testing.assert_allclose(lesion.box_in(GEOMETRY), (3, 2, 1, 6, 5, 3))
    # Voxel 0 has its center at the same position, so that its lower edge moves.
    halved = GEOMETRY.resample((0.5, 0.5, 1.0))
    np.testing.assert_allclose(lesion.box_in(halved), (5.5, 3.5, 1.5, 11.5, 9.5, 5.5))
    # Turned by 45 degrees around z, the box contains the corners of all voxels.
    c = 2**-0.5
    turned = Geometry((9, 40, 40), (1, 1, 2), (-20, -20, 10), (c, -c, 0, c, c, 0, 0, 0, 1))
    corners = GEOMETRY.corners_to_world([(3, 2, 1, 6, 5, 3)])[0]
    voxels = turned.points_to_voxels(corners)
    expected = np.concatenate((voxels.min(axis=0), voxels.max(axis=0)))
    np.testing.assert_allclose(lesion.box_in(turned), expected)
