import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import bootstrap_froc, slice_froc

from .. import published

RATES = (0.5, 1, 2, 4, 8, 16)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_equals_the_published_evaluation(dtype):
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth, detections = {}, {}
        for image in range(8):
            corner = rng.integers(0, 30, (int(rng.integers(0, 4)), 2))
            truth[image] = np.hstack([corner, corner + rng.integers(8, 14, corner.shape)])
            corner = rng.integers(0, 30, (int(rng.integers(0, 30)), 2))
            scores = rng.integers(0, 6, (len(corner), 1)) / 6
            rows = np.hstack([corner, corner + rng.integers(8, 14, corner.shape), scores])
            detections[image] = rows.astype(dtype)
        truth[100] = []
        expected = published.key_slices(detections, truth, RATES)
        result = slice_froc(detections, truth)
        np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-12, rtol=0)
        np.testing.assert_array_equal(result.curve.fps, expected["fps"])
        np.testing.assert_array_equal(result.curve.sensitivity, expected["sensitivity"])
        assert result.mean_sensitivity == pytest.approx(expected["values"][:4].mean(), abs=1e-12)
        assert result.ap is None
        assert result.counts["scans"] == 9


def test_last_sensitivity_is_used_beyond_the_curve():
    box = [1, 1, 10, 10]
    result = slice_froc({0: [[*box, 0.5]]}, {0: [box], 1: [box]})
    np.testing.assert_array_equal(result.sensitivity, 0.5)
    assert result.outside == RATES


def test_no_detections():
    result = slice_froc({}, {0: [[1, 1, 10, 10]]})
    np.testing.assert_array_equal(result.sensitivity, 0)
    assert result.mean_sensitivity == 0


@pytest.mark.parametrize(
    ("detections", "truth", "message"),
    [
        ({}, {}, "contains no scan"),
        ({"x": [[1, 1, 2, 2, 0.5]]}, {"y": []}, "lacks, first 'x'"),
        ({"x": [[1, 1, 2, 2]]}, {"x": []}, "detections of 'x'"),
        ({}, {"x": [[1, 1, 2]]}, "lesions of 'x' are malformed; expected rows of 4"),
        ({"x": [[1, 1, 2, 2, np.nan]]}, {"x": []}, "NaN"),
    ],
)
def test_invalid_input_is_named(detections, truth, message):
    with pytest.raises(ValueError, match=message):
        slice_froc(detections, truth)


def test_boxes_of_a_lesion_on_several_images_count_once():
    box, far = [1, 1, 10, 10], [31, 31, 40, 40]
    truth = {("a", 0): [box], ("a", 1): [box, far], ("a", 2): [box], ("b", 0): [box]}
    ids = {
        ("a", 0): [("a", 1)], ("a", 1): [("a", 1), ("a", 2)], ("a", 2): [("a", 1)],
        ("b", 0): [None],
    }  # fmt: skip
    found = {
        ("a", 0): [[*far, 0.95]], ("a", 1): [[*box, 0.9]], ("a", 2): [[*box, 0.8]],
        ("b", 0): [[*box, 0.5]],
    }  # fmt: skip
    assert slice_froc(found, truth).counts["lesions"] == 5
    result = slice_froc(found, truth, lesion_ids=ids)
    counts = result.counts
    assert (counts["lesions"], counts["true_positives"], counts["scans"]) == (3, 2, 4)
    assert (counts["false_positives"], counts["duplicates"]) == (1, 1)
    np.testing.assert_array_equal(result.curve.sensitivity, np.array([0, 1, 1, 2]) / 3)
    # The images of a lesion are drawn together.
    with pytest.raises(ValueError, match="a lesion has boxes in several of the scans"):
        bootstrap_froc(result, 5)
    assert bootstrap_froc(result, 5, groups=["a", "a", "a", "b"]).rounds == 5
    with pytest.raises(ValueError, match=r"image \('a', 0\) has 2 lesion ids and 1 lesions"):
        slice_froc(found, truth, lesion_ids={("a", 0): [1, 2]})
