import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import sensitivity_at

FPS = [0.0, 0.5, 0.5, 1.0, 1.5]
SENSITIVITY = [0.2, 0.2, 0.4, 0.4, 0.5]


def test_inside_the_curve():
    for extrapolate in (True, False):
        values = sensitivity_at(FPS, SENSITIVITY, [0.25, 0.5, 0.75, 1.25], extrapolate=extrapolate)
        # At a vertical step, the lower end is used.
        np.testing.assert_allclose(values, [0.2, 0.2, 0.4, 0.45])


def test_outside_the_curve():
    assert sensitivity_at(FPS, SENSITIVITY, [2.0], extrapolate=True)[0] == pytest.approx(0.6)
    assert sensitivity_at(FPS, SENSITIVITY, [2.0], extrapolate=False)[0] == 0.5
    late = sensitivity_at([1.0, 2.0], [0.0, 0.5], [0.5], extrapolate=True)
    assert late[0] == pytest.approx(-0.25)
    assert sensitivity_at([1.0, 2.0], [0.0, 0.5], [0.5], extrapolate=False)[0] == 0


def test_single_point_and_no_point():
    np.testing.assert_array_equal(
        sensitivity_at([1.0], [0.3], [0.5, 1, 2], extrapolate=False), [0.3, 0.3, 0.3]
    )
    np.testing.assert_array_equal(sensitivity_at([], [], [1, 2], extrapolate=True), [0, 0])
