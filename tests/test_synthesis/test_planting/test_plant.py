import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.errors import InputError
from mmdet_lesion.structures import Volume
from mmdet_lesion.synthesis.planting import (
    Appearance,
    PlantingSettings,
    ShapeLibrary,
    plant_lesion,
    plant_lesions,
    study_background,
)

from .conftest import SPACING, ball, make_chest

LUNG = PlantingSettings(lesions=(3, 3), diameter=(9, 26), tissues=("lung",), subsolid=0.0)
SOFT = replace(LUNG, tissues=("soft tissue",), visibility=0.0, contrast=(60, 60), hypodense=1.0)


def plant(chest, shapes, settings, seed=0, known=None):
    return plant_lesions(chest, shapes, settings, np.random.default_rng(seed), known)


@pytest.fixture(scope="module")
def lung(chest, balls):
    return plant(chest, balls, LUNG)


@pytest.fixture(scope="module")
def soft(chest, balls):
    return plant(chest, balls, SOFT)


def around(lesion, shape, margin):
    """Return the voxels within some voxels of the box of a lesion."""
    mask = np.zeros(shape, bool)
    stop = np.add(lesion.start, lesion.mask.shape) + margin
    start = np.maximum(np.subtract(lesion.start, margin), 0)
    mask[tuple(slice(a, b) for a, b in zip(start, stop))] = True
    return mask


def test_only_the_lesions_change(chest, lung):
    assert len(lung.lesions) == 3 and lung.volume.array.dtype == np.int16
    changed = lung.volume.array != chest.array
    allowed = np.any([around(one, changed.shape, 4) for one in lung.lesions], axis=0)
    assert changed.any() and not (changed & ~allowed).any()


def test_solid_nodules_replace_lung(chest, lung):
    for one in lung.lesions:
        z, y, x = np.add(one.start, np.array(one.mask.shape) // 2)
        core = lung.volume.array[z, y - 1 : y + 2, x - 1 : x + 2].mean()
        assert core == pytest.approx(one.appearance.hu, abs=80)
        assert one.contrast > 500


def test_truth_is_the_mask(lung):
    geometry = lung.volume.geometry
    for one in lung.lesions:
        low, high = one.box[:3], one.box[3:]
        assert (high - low).tolist() == list(one.mask.shape[::-1])
        np.testing.assert_allclose(one.center, geometry.points_to_world((low + high) / 2)[0])
        voxels = np.count_nonzero(one.mask)
        assert one.diameter == pytest.approx((6 / math.pi * voxels * 12) ** (1 / 3))
        box, ends = one.sections()[one.key_slice]
        assert ends is not None
        plane = np.argwhere(one.mask[one.key_slice - one.start[0]])
        assert box[2] - box[0] == np.ptp(plane[:, 1]) + 1
        # Ends are pixels of the lesion.
        for x, y in ends[:2].round().astype(int):
            assert one.mask[one.key_slice - one.start[0], y - one.start[1], x - one.start[2]]


def test_lesions_keep_apart(lung):
    edges = np.array(SPACING)
    for i, one in enumerate(lung.lesions):
        for other in lung.lesions[:i]:
            apart = np.linalg.norm((one.box - other.box).reshape(2, 3).mean(axis=0) * edges)
            assert apart > (one.diameter + other.diameter) / 2 + LUNG.distance


def test_known_lesions_are_not_touched(chest, balls):
    middle = chest.geometry.points_to_world([[28, 48, 15]])[0]
    planted = plant(chest, balls, LUNG, known=np.array([[*middle, 60.0]]))
    for one in planted.lesions:
        assert np.linalg.norm(one.center - middle) > 30 + one.diameter / 2


def test_contrast_in_soft_tissue_keeps_the_noise(chest, soft):
    assert soft.lesions
    for one in soft.lesions:
        assert one.appearance.kind == "hypodense"
        inside = np.zeros(chest.shape, bool)
        z, y, x = one.start
        d, h, w = one.mask.shape
        inside[z : z + d, y : y + h, x : x + w] = one.mask
        change = soft.volume.array[inside].astype(float) - chest.array[inside]
        assert -65 < change.mean() < -30
        assert soft.volume.array[inside].std() < chest.array[inside].std() + 25


def test_the_same_seed_gives_the_same_voxels(chest, balls, lung):
    again = plant(chest, balls, LUNG)
    np.testing.assert_array_equal(again.volume.array, lung.volume.array)
    other = plant(chest, balls, LUNG, seed=1)
    assert (other.volume.array != lung.volume.array).any()


def test_ground_glass_lets_the_lung_shine_through(chest, balls):
    planted = plant(chest, balls, replace(LUNG, subsolid=1.0, lesions=(6, 6)))
    kinds = {one.appearance.kind for one in planted.lesions}
    assert kinds <= {"ground-glass", "part-solid"}
    for one in planted.lesions:
        if one.appearance.kind == "ground-glass":
            assert one.contrast < 550


def test_the_chest_wall_remains(chest, balls):
    # Lesions may touch the pleura, but end there.
    wall = np.zeros(chest.shape, bool)
    wall[:, :, 45:51] = True
    for seed in range(3):
        planted = plant(chest, balls, LUNG, seed)
        np.testing.assert_array_equal(planted.volume.array[wall], chest.array[wall])


def test_texture_of_the_shape(chest):
    shapes = ShapeLibrary.of([ball(20, texture=120.0)])
    (one,) = plant(chest, shapes, replace(LUNG, lesions=(1, 1))).lesions
    assert one.appearance.kind == "texture" and one.appearance.hu == pytest.approx(120, abs=1)
    drawn = plant(chest, shapes, replace(LUNG, lesions=(1, 1), texture=False)).lesions
    assert drawn[0].appearance.kind == "solid"


def test_new_noise_at_zero_contrast_looks_like_the_old(chest):
    background = study_background(chest.array, SPACING)
    shapes = ShapeLibrary.of([ball(24)])
    rng = np.random.default_rng(0)
    before, after = [], []
    for _ in range(12):
        hu = chest.array.copy()
        one = plant_lesion(
            hu, chest.geometry, background, shapes, SOFT, "soft tissue", rng,
            appearance=Appearance("replaced", 0.0),
        )  # fmt: skip
        if one is not None:
            z, y, x = np.add(one.start, np.array(one.mask.shape) // 2)
            part = (slice(z - 1, z + 2), slice(y - 2, y + 3), slice(x - 2, x + 3))
            before.append(chest.array[part].std())
            after.append(hu[part].std())
    assert len(after) > 4
    assert np.mean(after) == pytest.approx(np.mean(before), rel=0.25)


@pytest.mark.parametrize("depth", [3, 6])
def test_thin_volumes(balls, depth):
    chest = make_chest(shape=(depth, 96, 96))
    thick = Volume(chest.array, (2.0, 2.0, 20.0), chest.origin)
    planted = plant(thick, balls, replace(LUNG, lesions=(1, 1)))
    assert len(planted.lesions) == 1


def make_legs():
    """Make two legs with bones on a table, of 20 slices of 5 mm."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:96, :96].astype(float)
    plane = np.full((96, 96), -1000.0)
    plane[80:84] = -700
    for middle in (26, 70):
        radius = np.hypot(y - 50, x - middle)
        plane[radius < 20] = 50
        plane[radius < 5] = 800
    hu = ndimage.gaussian_filter(plane, 0.7) + 12 * rng.standard_normal((20, 96, 96))
    return Volume(np.rint(hu).astype(np.int16), (2.0, 2.0, 5.0))


@pytest.mark.parametrize("case", ["legs", "20 slices of 1 mm", "20 slices of 5 mm"])
def test_uncommon_scans(balls, case):
    if case == "legs":
        scan, settings = make_legs(), replace(SOFT, lesions=(2, 2))
    else:
        spacing = (2.0, 2.0, 1.0 if "1 mm" in case else 5.0)
        scan = Volume(make_chest(shape=(20, 96, 96)).array, spacing)
        settings = replace(LUNG, lesions=(2, 2))
    planted = plant(scan, balls, settings)
    assert planted.lesions
    changed = planted.volume.array != scan.array
    allowed = np.any([around(one, changed.shape, 4) for one in planted.lesions], axis=0)
    assert changed.any() and not (changed & ~allowed).any()
    for one in planted.lesions:
        # The lesion is in the volume, as large as its shape, and in its tissue.
        assert (one.box[:3] >= 0).all() and (one.box[3:] <= scan.shape[::-1]).all()
        assert 8 < one.diameter < 26
        assert abs(one.contrast) > (30 if case == "legs" else 400)
        z, y, x = one.start
        d, h, w = one.mask.shape
        before = scan.array[z : z + d, y : y + h, x : x + w][one.mask]
        assert -950 < np.median(before) < 150


def test_shapes_larger_than_the_organ_are_left_out(chest, balls):
    # The lungs are 54 mm wide.
    large = [ball(100, name="large")]
    mixed = ShapeLibrary.of([source.load() for source in balls.sources] + large)
    planted = plant(chest, mixed, replace(LUNG, diameter=(9, 130)))
    assert planted.lesions and all(one.shape != "large" for one in planted.lesions)
    with pytest.raises(InputError, match="no lesion of 80 to 130 mm fits into the scan, which has"):
        plant(chest, ShapeLibrary.of(large), replace(LUNG, diameter=(80, 130)))


def test_texture_in_soft_tissue_keeps_the_noise(chest):
    shapes = ShapeLibrary.of([ball(24, texture=50.0)])
    planted = plant(chest, shapes, replace(SOFT, lesions=(2, 2)))
    assert planted.lesions
    for one in planted.lesions:
        assert one.appearance.kind == "texture"
        z, y, x = np.add(one.start, np.array(one.mask.shape) // 2)
        part = (slice(z - 1, z + 2), slice(y - 2, y + 3), slice(x - 2, x + 3))
        noise = [
            volume.array[part] - volume.array[part].mean() for volume in (chest, planted.volume)
        ]
        assert np.corrcoef(noise[0].ravel(), noise[1].ravel())[0, 1] > 0.95


def test_no_room(chest):
    shapes = ShapeLibrary.of([ball(100)])
    with pytest.raises(InputError, match="no lesion of 90 to 110 mm fits into the scan, which has"):
        plant(chest, shapes, replace(LUNG, diameter=(90, 110), scale=0.0))


def test_no_tissue(balls):
    with pytest.raises(InputError, match="no lung is found in the scan; expected"):
        plant(make_chest(lungs=False), balls, LUNG)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (dict(lesions=(3, 1)), "lesions is 3 and 1"),
        (dict(diameter=(0.5, 3)), "diameter is 0.5 and 3; expected 1 <= lowest"),
        (dict(subsolid=1.5), "subsolid is 1.5"),
        (dict(scale=1.0), "scale is 1.0"),
        (dict(distance=-1.0), "distance is -1.0"),
        (dict(tissues=("liver",)), "tissues is"),
    ],
)
def test_invalid_settings(change, text):
    with pytest.raises(InputError, match=text):
        PlantingSettings(**change)
