import numpy as np
import pytest

from mmdet_lesion.synthesis.planting import find_tissue
from mmdet_lesion.synthesis.planting.tissue import close_lung

from .conftest import SPACING, make_chest


def test_lungs_and_muscle(chest):
    tissue = find_tissue(chest.array, SPACING)
    z, y, x = 15, 48, 28
    places = np.array([[z, y, x], [z, y, 48], [z, 2, 2], [z, y, 1]])
    assert tissue.contains("lung", places).tolist() == [True, False, False, False]
    assert tissue.contains("soft tissue", places).tolist() == [False, True, False, False]
    # Two ellipses of 0.28 x 0.5 of half the image.
    area = 2 * np.pi * 0.28 * 0.5 * 96**2
    assert tissue.volume("lung") == pytest.approx(area * 90 / 1000, rel=0.1)


def test_vessels_belong_to_the_lung(chest):
    hu = chest.array.copy()
    hu[:, 46:48, 26:28] = 40
    tissue = find_tissue(hu, SPACING)
    assert tissue.contains("lung", np.array([15, 47, 27]))
    assert close_lung(hu[5:25, 35:60, 20:36], SPACING).all()


def test_gas_is_no_lung():
    hu = make_chest(lungs=False).array.copy()
    hu[:, 30:60, 30:60] = -1000
    tissue = find_tissue(hu, SPACING)
    assert not tissue.masks["lung"].any()
    assert tissue.masks["soft tissue"].any()


def test_foam_around_legs_is_no_lung():
    hu = np.full((20, 96, 96), -1000.0)
    hu[:, 20:70, 8:36] = hu[:, 20:70, 60:88] = 50
    hu[:, 40:80, 36:60] = -880
    hu[:, 70:80] = -880
    tissue = find_tissue(hu.astype(np.int16), SPACING)
    assert not tissue.masks["lung"].any() and tissue.masks["soft tissue"].any()


def test_soft_tissue_keeps_away_from_bone(chest):
    tissue = find_tissue(chest.array, SPACING)
    # The spine is at row 78; its radius is 4 pixels.
    assert not tissue.contains("soft tissue", np.array([15, 78, 48]))
    assert not tissue.contains("soft tissue", np.array([15, 73, 48]))


def test_thin_voxels_are_joined():
    hu = np.repeat(make_chest().array, 3, axis=0)
    tissue = find_tissue(hu, (2.0, 2.0, 1.0))
    assert tissue.step == (2, 1, 1)
    assert tissue.contains("lung", np.array([45, 48, 28]))


def test_air_alone():
    tissue = find_tissue(np.full((5, 20, 20), -1000, np.int16), SPACING)
    assert not any(mask.any() for mask in tissue.masks.values())
