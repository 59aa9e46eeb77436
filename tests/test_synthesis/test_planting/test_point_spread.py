import numpy as np
import pytest
from scipy import special

from mmdet_lesion.synthesis.planting import estimate_point_spread


def profile(size, start, stop, sigma):
    """Blurred interval at the centers of voxels."""
    at = (np.arange(size) + 0.5)[:, None] - (start, stop)
    return 0.5 * np.diff(special.erf(at[:, ::-1] / (np.sqrt(2) * sigma)))[:, 0]


def blocks(sigma, noise=15.0):
    """Blurred blocks of tissue in air; their faces lie anywhere between voxels."""
    hu = np.full((40, 120, 120), -1000.0)
    for index, (y, x) in enumerate(((10, 10), (10, 62), (65, 12), (64, 66))):
        shift = index / 4
        spans = [(8 + shift, 31.3 + shift), (y + shift, y + 40.6), (x + shift, x + 40.3)]
        sides = [profile(n, *span, s) for n, span, s in zip(hu.shape, spans, sigma)]
        hu += 1040 * np.einsum("i,j,k->ijk", *sides)
    return hu + noise * np.random.default_rng(0).standard_normal(hu.shape)


@pytest.mark.parametrize("sigma", [(0.5, 0.6, 0.6), (0.9, 0.8, 0.8), (0.5, 1.2, 1.2)])
def test_blur_of_the_edges(sigma):
    found = estimate_point_spread(blocks(sigma))
    np.testing.assert_allclose(found, sigma, rtol=0.25)
    assert found[1] == found[2]


def test_sharper_scans_have_a_smaller_estimate():
    found = [estimate_point_spread(blocks((0.6, s, s)))[1] for s in (0.6, 0.9, 1.3)]
    assert found == sorted(found)


def test_scans_without_edges_have_defaults():
    assert estimate_point_spread(np.full((4, 30, 30), 40, np.int16)) == (0.5, 0.65, 0.65)
    assert estimate_point_spread(np.full((1, 4, 4), 40, np.int16)) == (0.5, 0.65, 0.65)
