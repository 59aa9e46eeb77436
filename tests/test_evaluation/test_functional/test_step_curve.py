import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import box3d_froc, luna16_froc, p3d_froc
from mmdet_lesion.evaluation.functional.result import froc_figures
from mmdet_lesion.evaluation.functional.step_curve import StepCurve

from . import test_boxes3d, test_luna16

RATES = np.array([0.01, 0.1, 0.125, 0.25, 0.3, 0.5, 1, 2, 4, 8])


def check(result, seed, rounds=20):
    rng = np.random.default_rng(seed)
    curve = StepCurve(result.matches, result.rule)
    for weights in [np.ones(result.counts["scans"], int)] + [
        rng.integers(0, 4, result.counts["scans"]) for _ in range(rounds)
    ]:
        expected, _ = froc_figures(result.matches, result.rule, RATES, weights)
        np.testing.assert_allclose(curve.read(weights, RATES), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("levels", [None, 2, 4, 30])
def test_equals_the_froc_curve_with_ties(levels):
    for seed in range(12):
        detections, nodules, excluded, series = test_luna16.random_case(seed, levels=levels)
        check(luna16_froc(detections, nodules, excluded, series=series), seed)


def test_equals_the_froc_curve_without_ties():
    for seed in range(12):
        check(box3d_froc(*test_boxes3d.random_case(seed)), seed)


@pytest.mark.parametrize(
    "detections",
    [{}, {"a": [[0, 0, 0, 0.5]]}, {"a": [[50, 0, 0, 0.5]]}, {"b": [[50, 0, 0, 0.5]] * 2}],
)
def test_few_detections(detections):
    check(luna16_froc(detections, {"a": [[0, 0, 0, 10]], "b": []}), 0)


def test_hit_and_false_positive_with_equal_scores():
    detections = {"a": [[0, 0, 0, 0.5], [50, 0, 0, 0.5]], "b": [[50, 0, 0, 0.4]]}
    result = luna16_froc(detections, {"a": [[0, 0, 0, 10]], "b": []})
    # Both are one point of the curve, which increases linearly to (0.5, 1).
    np.testing.assert_allclose(result.sensitivity[:3], [0.25, 0.5, 1])
    check(result, 0)


def test_interpolated_curves_are_rejected():
    result = p3d_froc({}, {"a": {}})
    with pytest.raises(ValueError, match="cannot be used here"):
        StepCurve(result.matches, result.rule)
