import numpy as np
import pytest
from scipy import ndimage

from mmdet_lesion.synthesis.planting.appearance import draw_appearance, merge, shift, smooth_field


def test_merging_keeps_the_variance_everywhere():
    rng = np.random.default_rng(0)
    hu = rng.normal(-850, 20, (100, 100, 100))
    noise = rng.normal(0, 20, hu.shape)
    for share in (0.0, 0.3, 0.5, 0.9, 1.0):
        after = merge(hu, np.full(hu.shape, share), np.full(hu.shape, 40.0), noise)
        assert after.std() == pytest.approx(20, rel=0.02)
        assert after.mean() == pytest.approx(-850 + share * 890, abs=0.5)
    np.testing.assert_array_equal(merge(hu, np.zeros(hu.shape), hu, noise), hu)


def test_shifting_keeps_the_noise():
    hu = np.random.default_rng(0).normal(50, 15, (12, 30, 30))
    opacity = np.ones(hu.shape)
    after = shift(hu, opacity, np.full(hu.shape, -30.0), 15.0, (0.5, 1.0, 1.0))
    np.testing.assert_allclose(after - hu, -30, atol=3)
    np.testing.assert_array_equal(shift(hu, 0 * opacity, hu, 15.0, (1, 1, 1)), hu)


def test_shifting_removes_planes_of_fat():
    hu = np.random.default_rng(0).normal(50, 5, (12, 40, 40))
    hu[:, :, 18:22] = -100
    after = shift(hu, np.ones(hu.shape), np.full(hu.shape, 40.0), 5.0, (0.5, 1.0, 1.0))
    assert after[:, :, 19:21].mean() > 50
    assert after[:, :, :10].mean() == pytest.approx(90, abs=2)


def test_kinds_follow_their_fractions():
    rng = np.random.default_rng(0)
    lung = [draw_appearance("lung", rng, 0.4, 0.5, (15, 80)) for _ in range(400)]
    kinds = [one.kind for one in lung]
    assert kinds.count("solid") / 400 == pytest.approx(0.6, abs=0.08)
    assert kinds.count("ground-glass") / 400 == pytest.approx(0.2, abs=0.07)
    for one in lung:
        assert (one.opacity < 1) == (one.kind != "solid")
        assert (one.core > 0) == (one.kind == "part-solid")
    soft = [draw_appearance("soft tissue", rng, 0.4, 0.25, (15, 80)) for _ in range(400)]
    darker = [one for one in soft if one.kind == "hypodense"]
    assert len(darker) / 400 == pytest.approx(0.25, abs=0.07)
    assert all(one.hu < 0 for one in darker)
    assert all(15 <= abs(one.hu) <= 80 for one in soft)


def test_smooth_fields_have_grains_in_mm():
    rng = np.random.default_rng(0)
    field = smooth_field((30, 60, 60), (3.0, 1.0, 1.0), rng)
    assert field.std() == pytest.approx(1, abs=0.15)
    along = [ndimage.correlate1d(field, [1, 0, -1], axis).std() for axis in range(3)]
    assert along[0] > 1.5 * along[1]
