import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.errors import InputError
from mmdet_lesion.synthesis.planting import discriminate, plant, study_background
from mmdet_lesion.synthesis.planting import zero_contrast_pairs as pairs_of
from mmdet_lesion.synthesis.planting.zero_contrast import (
    ADDED,
    FEATURES,
    INSIDE,
    REPLACED,
    texture_features,
)

from .conftest import make_chest


def pairs(number, balls, appearance, places):
    found = []
    for seed in range(number):
        chest = make_chest(seed, lungs=False)
        background = study_background(chest.array, chest.spacing)
        rng = np.random.default_rng(seed)
        found.append(
            pairs_of(chest, background, balls, appearance, places, rng, diameter=(16.0, 24.0))
        )
    return found


@pytest.fixture(scope="module")
def replaced(balls):
    return pairs(3, balls, REPLACED, 6)


def test_new_noise_cannot_be_told_from_the_old(replaced):
    assert all(len(one) == 6 for one in replaced)
    found = discriminate(replaced, INSIDE)
    assert found.pairs == 18 and tuple(found.singles) == INSIDE
    assert found.band[0] < 0.5 < found.band[1]


def test_white_noise_can_be_told(balls, monkeypatch):
    def white(hu, tissue, model, start, where, rng, taken=()):
        return 12 * rng.standard_normal(where.shape).astype(np.float32)

    monkeypatch.setattr(plant, "borrow_noise", white)
    found = discriminate(pairs(2, balls, REPLACED, 6), INSIDE)
    assert found.auc > 0.9 and found.band[0] > 0.8
    assert found.singles["correlation x"] < 0.1


def test_added_contrast_leaves_the_noise(balls):
    found = pairs(1, balls, ADDED, 2)
    before, after = np.concatenate(found).transpose(1, 0, 2)
    np.testing.assert_allclose(before, after, atol=0.1)


def test_features():
    rng = np.random.default_rng(0)
    hu = ndimage.gaussian_filter(rng.standard_normal((9, 40, 40)), (0, 1, 1))
    hu = (50 + 20 * hu / hu.std()).astype(np.float32)
    mask = np.zeros(hu.shape, bool)
    mask[1:8, 10:30, 10:30] = True
    values = dict(zip(FEATURES, texture_features(hu, mask)))
    assert np.exp(values["log SD"]) == pytest.approx(20, rel=0.1)
    assert values["correlation x"] == pytest.approx(np.exp(-0.25), abs=0.05)
    assert values["correlation z"] == pytest.approx(0, abs=0.1)
    assert np.exp(values["log kurtosis"]) == pytest.approx(3, rel=0.2)
    assert values["SD / surroundings"] == pytest.approx(0, abs=0.15)
    mask[:, 13:] = False
    assert texture_features(hu, mask) is None


def test_one_scan_is_too_few(replaced):
    with pytest.raises(InputError, match="1 scan.s. have homogeneous soft tissue .* two or more"):
        discriminate([replaced[0], np.zeros((0, 2, len(FEATURES)))])
