import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.synthesis.planting import estimate_point_spread


def blocks(sigma, noise=15.0):
    """Blurred blocks of tissue in air with faces in all directions."""
    fine = np.full((40, 120, 120), -1000.0)
    for index, (y, x) in enumerate(((10, 10), (10, 62), (65, 12), (64, 66))):
        fine[8:32, y : y + 40 + index, x : x + 41 - index] = 40.0
    blurred = ndimage.gaussian_filter(fine, sigma)
    return blurred + noise * np.random.default_rng(0).standard_normal(fine.shape)


@pytest.mark.parametrize("sigma", [(0.5, 0.6, 0.6), (0.9, 0.8, 0.8), (0.5, 1.2, 1.2)])
def test_blur_of_the_edges(sigma):
    # A blur of less than a voxel is not what a sampled kernel does.
    found = estimate_point_spread(blocks(sigma))
    np.testing.assert_allclose(found, sigma, rtol=0.25)
    assert found[1] == found[2]


def test_sharper_scans_have_a_smaller_estimate():
    found = [estimate_point_spread(blocks((0.6, s, s)))[1] for s in (0.6, 0.9, 1.3)]
    assert found == sorted(found)


def test_scans_without_edges_have_defaults():
    assert estimate_point_spread(np.full((4, 30, 30), 40, np.int16)) == (0.5, 0.65, 0.65)
    assert estimate_point_spread(np.full((1, 4, 4), 40, np.int16)) == (0.5, 0.65, 0.65)
