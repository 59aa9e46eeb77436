import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.synthesis.planting import estimate_noise
from mmdet_lesion.synthesis.planting.noise import noise_ratio

SPACING = (0.8, 0.8, 2.0)


def noisy(blur, sigma, shape=(20, 120, 120), seed=0):
    field = ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal(shape), blur)
    return 50 + sigma * field / field.std()


def grid(shape):
    return np.argwhere(np.ones([n // 6 for n in shape])) * 6.0 + 3


def neighbors(field, axis):
    first = np.take(field, range(field.shape[axis] - 1), axis).ravel()
    second = np.take(field, range(1, field.shape[axis]), axis).ravel()
    return np.corrcoef(first, second)[0, 1]


@pytest.mark.parametrize("blur", [(0.0, 0.5, 0.5), (0.7, 1.0, 0.6)])
def test_new_noise_is_of_the_same_kind(blur):
    hu = noisy(blur, 20.0)
    model = estimate_noise(hu, SPACING, grid(hu.shape))
    new = model.sample(np.random.default_rng(1), (16, 60, 70), (20, 48, 48))
    assert new.std() == pytest.approx(20.0, rel=0.12)
    for axis in range(3):
        assert neighbors(new, axis) == pytest.approx(neighbors(hu, axis), abs=0.1)


def test_noise_differs_between_places():
    hu = noisy((0, 0.5, 0.5), 10.0)
    hu[:, 60:] = 50 + 3 * (hu[:, 60:] - 50)
    # Half of the patches are used, so that those with more noise must be wanted.
    near = estimate_noise(hu[:, 60:], SPACING, grid((20, 60, 120))).sigma((0, 0, 0))
    far = estimate_noise(hu[:, :60], SPACING, grid((20, 60, 120))).sigma((0, 0, 0))
    assert near == pytest.approx(3 * far, rel=0.15)


def test_edges_are_no_noise():
    hu = noisy((0, 0.5, 0.5), 10.0)
    hu[:, :, ::30] += 120
    model = estimate_noise(hu, SPACING, grid(hu.shape))
    assert model.sigma((0, 0, 0)) == pytest.approx(10.0, rel=0.2)


def test_scans_without_tissue():
    air = np.full((3, 20, 20), -1000, np.int16)
    model = estimate_noise(air, SPACING, np.zeros((0, 3)))
    assert not model.sample(np.random.default_rng(0), (2, 5, 5), (0, 0, 0)).any()


def test_ratio_of_noise_ignores_edges():
    noise = noisy((0, 0.6, 0.6), 10.0, (6, 40, 40)) - 50
    scan = 1.3 * noisy((0, 0.6, 0.6), 10.0, (6, 40, 40), seed=1)
    scan[:, :, 20:22] += 300
    where = np.zeros(scan.shape, bool)
    where[:, 5:35, 2:20] = True
    assert noise_ratio(scan, noise, where, np.inf) == pytest.approx(1.3, rel=0.15)
    assert noise_ratio(scan, noise, where, 1.0) == 1.0
    assert noise_ratio(0 * scan, noise, where, np.inf) == 1.0
    assert noise_ratio(scan, noise, where & False, np.inf) == 1.0
