import numpy as np
import pytest

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis.planting import shape_from_contours, shape_from_mask

from .conftest import ball


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.7, 0.7, 2.5)])
def test_a_mask_keeps_its_physical_size(spacing):
    shape = ball(20.0, spacing)
    assert shape.diameter == pytest.approx(20.0, rel=0.04)
    extent = np.ptp(shape.points, axis=0)
    np.testing.assert_allclose(extent, 20.0, atol=2.0)


def test_contours_lie_half_a_pixel_outside():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    levels = np.arange(-9.0, 10.0, 1.5)
    contours = []
    for level in levels:
        radius = np.sqrt(max(10.0**2 - level**2, 0)) / 0.5 + 0.5
        points = 100 + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        contours.append((level, points))
    shape = shape_from_contours(contours, 0.5, 1.5)
    assert shape.diameter == pytest.approx(20.0, rel=0.03)


def test_a_single_contour_is_as_thick_as_a_slice():
    square = np.array([[0, 0], [20, 0], [20, 20], [0, 20.0]])
    shape = shape_from_contours([(5.0, square)], 1.0, 4.0)
    thickness = np.ptp(shape.points[:, 0]) + shape.step
    assert 3.0 < thickness < 4.5
    assert np.ptp(shape.points[:, 1]) == pytest.approx(19.0, abs=1.5)


def test_sections_that_do_not_fit_on_each_other_are_evened_out():
    angles = np.linspace(0, 2 * np.pi, 200, endpoint=False)
    disc = 50 + 10.5 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    contours = [(2.0 * i, disc + (1.5 * (i % 2), 0)) for i in range(10)]
    shape = shape_from_contours(contours, 1.0, 2.0)
    inside = shape.distance < 0
    middle = np.arange(inside.shape[2]) * shape.step
    centers = [middle[plane.nonzero()[1]].mean() for plane in inside if plane.sum() > 400]
    assert len(centers) > 10
    assert np.ptp(centers[5:-5]) < 0.5
    volume = inside.sum() * shape.step**3
    assert volume == pytest.approx(np.pi * 10**2 * 20, rel=0.06)


def test_nothing_to_build_a_shape_of():
    with pytest.raises(InputError, match="no voxel is labeled"):
        shape_from_mask(np.zeros((3, 3, 3), bool), (1, 1, 1), "empty.nii")
    with pytest.raises(InputError, match="no polygon of three points"):
        shape_from_contours([(0.0, np.zeros((1, 2)))], 1.0, 1.0)


def test_texture_has_no_trace_of_the_surroundings():
    shape = ball(20.0, (1.0, 1.0, 2.0), texture=40.0)
    np.testing.assert_allclose(shape.texture, 40.0, atol=1e-3)
    assert shape.texture.shape == shape.distance.shape


def test_texture_lies_where_it_was():
    mask = np.zeros((12, 16, 18), bool)
    mask[1:11, 2:14, 3:16] = True
    ramp = np.broadcast_to(10.0 * np.arange(18), mask.shape)
    shape = shape_from_mask(mask, (1.0, 1.0, 1.0), hu=ramp)
    inside = np.argwhere(shape.distance < -3)
    # The middle of the mask is at column 9.
    expected = 90 + 10 * (inside[:, 2] - shape.center[2]) * shape.step
    np.testing.assert_allclose(shape.texture[tuple(inside.T)], expected, atol=4)
