"""Tests of the search for the patient in a scan."""

import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.structures import CUBE_SYMMETRIES, find_body

SPACING = (2.0, 2.0, 3.0)


def chest(shape=(20, 160, 200), center=(80, 100), radii=(45, 70)):
    """Return an elliptic body with two lungs in noisy air, and where it is."""
    y, x = np.mgrid[: shape[1], : shape[2]]
    y, x = (y - center[0]) / radii[0], (x - center[1]) / radii[1]
    plane = np.where(np.hypot(y, x) < 1, 40.0, -1000.0)
    for side in (-0.45, 0.45):
        plane[np.hypot(y / 0.6, (x - side) / 0.35) < 1] = -850
    noise = np.random.default_rng(0).normal(0, 15, shape)
    array = np.rint(np.broadcast_to(plane, shape) + noise).astype(np.int16)
    return array, np.broadcast_to(plane > -1000, shape)


def cells_of(array, spacing=SPACING, **kwargs):
    """Return the mask of a volume for every voxel."""
    return find_body(array, spacing, **kwargs).cells(1, array.shape[1:])


def test_mask_holds_the_body_with_its_lungs_and_little_air():
    array, body = chest()
    mask = cells_of(array)
    assert mask.shape == array.shape
    assert mask[body].all()
    # 16 mm, 8 voxels, around the body, and a few cells of 4 mm.
    rows = np.flatnonzero(mask[10].any(1))
    columns = np.flatnonzero(mask[10].any(0))
    for low, high, expected in ((*rows[[0, -1]], (35, 125)), (*columns[[0, -1]], (30, 170))):
        assert 8 <= expected[0] - low <= 13
        assert 8 <= high - expected[1] <= 13


def test_margin_along_z():
    array = np.full((30, 80, 80), -1000, np.int16)
    array[12:15, 20:60, 20:60] = 40
    mask = cells_of(array, margin=6.0)
    assert np.flatnonzero(mask.any((1, 2))).tolist() == list(range(10, 17))


def test_table_is_not_part_of_the_body():
    array, _ = chest()
    array[:, 140:142] = 100
    array[:, 150:152] = 100
    mask = cells_of(array)
    assert not mask[:, 145:].any()
    # A table that touches the back does not become part of it, either.
    array, _ = chest(center=(95, 100))
    array[:, 140:142] = 100
    mask = cells_of(array)
    assert not mask[:, 145:, :20].any()


def test_parts_apart_from_the_trunk():
    array, _ = chest()
    array[:, 70:90, 10:24] = 40
    mask = cells_of(array)
    assert mask[:, 70:90, 10:24].all()


@pytest.mark.parametrize("side", [slice(0, 60), slice(100, None)])
def test_lung_at_the_edge_of_the_field_of_view(side):
    array, body = (part[:, :, side] for part in chest())
    assert cells_of(array)[body].all()


def test_field_of_view_inside_a_lung():
    # A vessel is the only tissue at one side of the parenchyma.
    array = np.random.default_rng(0).normal(-850, 30, (10, 96, 96)).astype(np.int16)
    array[:, :, :12] = 30
    assert cells_of(array).all()


@pytest.mark.parametrize("value", [-1000, -850])
def test_no_tissue(value):
    assert find_body(np.full((4, 30, 30), value, np.int16), SPACING) is None


def test_values_that_are_not_hu():
    array = np.random.default_rng(0).integers(0, 500, (5, 40, 40), dtype=np.int16)
    assert cells_of(array).all()


@pytest.mark.parametrize("edge", [0.5, 4.0, 9.0])
def test_any_spacing(edge):
    height, width = round(320 / edge), round(400 / edge)
    array, body = chest((8, height, width), (height / 2, width / 2), (90 / edge, 140 / edge))
    mask = cells_of(array, (edge, edge, 5.0))
    assert mask[body].all()
    assert mask.mean() < 0.6


def test_cells_of_resized_and_padded_slices():
    array, _ = chest()
    body = find_body(array, SPACING)
    # Twice the size, padded to 352 x 416 pixels.
    mask = body.cells(16, (352, 416), (2.0, 2.0))
    assert mask.shape == (20, 22, 26)
    voxels = body.cells(1, array.shape[1:])
    for row, column in ((3, 12), (8, 3), (10, 10), (17, 13), (19, 24)):
        # The voxel at the center of the cell.
        assert mask[5, row, column] == voxels[5, 8 * row + 4, min(8 * column + 4, 199)]
    # Padding continues the last cells.
    np.testing.assert_array_equal(mask[:, 20], mask[:, 19])
    np.testing.assert_array_equal(mask[:, :, 25], mask[:, :, 24])


def test_transformed_mask_is_that_of_the_transformed_volume():
    array, _ = chest((21, 83, 102), (40, 45), (25, 30))
    body = find_body(array, SPACING)
    mask = body.cells(1, array.shape[1:])
    for symmetry in CUBE_SYMMETRIES:
        found = body.transformed(symmetry)
        assert found.size == symmetry.size(array.shape)
        cells = found.cells(1, found.size[1:])
        expected = symmetry.apply(mask)
        # Cells are sampled at their centers, which moves edges by less than a cell.
        reach = 2 * body.step + 1
        assert (cells <= ndimage.maximum_filter(expected, reach)).all()
        assert (cells >= ndimage.minimum_filter(expected, reach)).all()
    assert (body.transformed(CUBE_SYMMETRIES[0]).mask == body.mask).all()
