import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import box3d_froc
from mmdet_lesion.io import read_boxes3d_truth

from .. import published

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)


def random_case(seed, volumes=12, most=12, dtype=np.float64, levels=7):
    rng = np.random.default_rng(seed)

    def boxes(count):
        corner = rng.integers(0, 12, (count, 3))
        return np.hstack([corner, corner + rng.integers(2, 9, (count, 3))]).astype(float)

    truth, detections = {}, {}
    for i in range(volumes):
        truth[i] = boxes(int(rng.integers(0, 4)))
        rows = boxes(int(rng.integers(1, most)))
        scores = np.ceil(rng.random(len(rows)) * levels) / levels
        detections[i] = np.column_stack([rows, scores]).astype(dtype)
    return detections, truth


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("overlap", ["iobb", "iou"])
def test_equals_the_published_evaluation(overlap, dtype):
    for seed in range(15):
        detections, truth = random_case(seed, dtype=dtype)
        expected = published.box3d(detections, truth, RATES, overlap)
        result = box3d_froc(detections, truth, overlap=overlap)
        np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-12, rtol=0)
        np.testing.assert_array_equal(result.curve.fps, expected["fps"])
        np.testing.assert_array_equal(result.curve.sensitivity, expected["sensitivity"])
        names = ("true_positives", "false_positives", "false_negatives", "duplicates", "lesions")
        assert tuple(result.counts[name] for name in names) == expected["counts"]
        assert result.ap is None


def test_published_manual_set(lesion_data):
    path = lesion_data / "deeplesion/DeepLesion_manual_1K_test_release.pkl"
    truth = read_boxes3d_truth(path, "val")
    assert (len(truth), sum(map(len, truth.values()))) == (200, 1292)
    rng = np.random.default_rng(0)
    detections = {}
    for name, rows in truth.items():
        near = np.repeat(rows, 2, axis=0)
        near = near + rng.normal(0, 4, near.shape)
        far = rng.uniform(0, 400, (12, 3))
        far = np.hstack([far, far + rng.uniform(5, 60, (12, 3))])
        boxes = np.vstack([near, far])
        scores = rng.random((len(boxes), 1)) ** np.repeat([1, 2], [len(near), 12])[:, None]
        detections[name] = np.hstack([boxes, scores])
    expected = published.box3d(detections, truth, RATES)
    result = box3d_froc(detections, truth)
    np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-9)
    assert result.counts["true_positives"] == expected["counts"][0]
    perfect = {name: np.column_stack([rows, np.ones(len(rows))]) for name, rows in truth.items()}
    np.testing.assert_array_equal(box3d_froc(perfect, truth).sensitivity, 1)


def test_iobb_divides_by_the_inclusive_detected_box():
    truth = {"a": [[1, 1, 1, 10, 10, 10]]}
    inside = {"a": [[1, 1, 1, 2, 2, 2, 0.5]]}
    assert box3d_froc(inside, truth).counts["true_positives"] == 1
    assert box3d_froc(inside, truth, overlap="iou").counts["true_positives"] == 0
    # 3 of 10 slices of the detected box are inside the lesion: exactly the threshold.
    for last, hits in ((17, 1), (18, 0)):
        box = {"a": [[1, 1, 8, 10, 10, last, 0.5]]}
        assert box3d_froc(box, truth).counts["true_positives"] == hits


def test_points_outside_the_curve():
    truth = {"a": [[1, 1, 1, 10, 10, 10]]}
    hit, miss = [1, 1, 1, 10, 10, 10], [50, 50, 50, 60, 60, 60]
    result = box3d_froc({"a": [[*miss, 0.9], [*hit, 0.8]]}, truth)
    np.testing.assert_array_equal(result.sensitivity, [0, 0, 0, 1, 1, 1, 1])
    assert result.outside == (0.125, 0.25, 0.5, 2, 4, 8)


@pytest.mark.parametrize(
    ("detections", "truth", "message"),
    [
        ({}, {}, "contains no scan"),
        ({"x": [[1, 1, 1, 2, 2, 2, 0.5]]}, {"y": []}, r"1 volume\(s\) that .* lacks, first 'x'"),
        (
            {"x": [[1, 1, 1, 2, 2, 2]]},
            {"x": []},
            "'x' are malformed; expected rows of 7",
        ),
        ({}, {"x": [[1, 1, 2, 2]]}, "lesions of 'x' are malformed"),
        ({"x": [[1, 1, 1, 2, 2, 2, np.nan]]}, {"x": []}, "NaN"),
    ],
)
def test_invalid_input_is_named(detections, truth, message):
    with pytest.raises(ValueError, match=message):
        box3d_froc(detections, truth)


def test_unknown_overlap_is_rejected():
    with pytest.raises(ValueError, match="expected one of iobb, iou"):
        box3d_froc({}, {"x": []}, overlap="giou")
