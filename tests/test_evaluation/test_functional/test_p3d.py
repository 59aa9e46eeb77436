import numpy as np
import pytest

from mmdet_lesion.evaluation import functional
from mmdet_lesion.io import read_detections, read_ground_truth
from mmdet_lesion.structures import Tracklets

from ...nested import p3d_froc
from .. import published

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8, 16)


def random_case(seed, row=list, num_volumes=6, num_tracklets=8, levels=7):
    """Return cases with few slices, positions and scores: many hits, duplicates and ties."""
    rng = np.random.default_rng(seed)

    def box():
        corner = rng.integers(0, 3, 2) * 10 + rng.integers(0, 3, 2)
        return [*corner.tolist(), *(corner + rng.integers(8, 14, 2)).tolist()]

    truth, detections = {}, {}
    for volume in range(num_volumes):
        name = f"{volume:06d}_01_01_000-010"
        truth[name + ".annot"] = {
            int(z): [[float(v) for v in box()] + [z, z] for _ in range(rng.integers(1, 4))]
            for z in rng.choice(5, rng.integers(0, 4), replace=False)
        }
        tracklets = []
        for _ in range(rng.integers(0, num_tracklets)):
            first = int(rng.integers(0, 4))
            tracklets.append(
                [
                    (z, row([*map(float, box()), float(rng.integers(1, levels)) / levels]))
                    for z in range(first, first + int(rng.integers(1, 4)))
                ]
            )
        if rng.random() < 0.8:
            detections[name] = tracklets
    return detections, truth


def float32(row):
    return np.array(row, dtype=np.float32)


def check(detections, truth, **settings):
    expected = published.p3d(detections, truth, RATES, settings.get("iou_thr", 0.5))
    result = p3d_froc(detections, truth, **settings)
    np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-12, rtol=0)
    assert result.ap == pytest.approx(expected["ap"], abs=1e-12)
    assert result.mean_sensitivity == pytest.approx(
        expected["values"][:7].mean(), abs=1e-12, nan_ok=True
    )
    np.testing.assert_array_equal(result.curve.fps, expected["fps"])
    np.testing.assert_array_equal(result.curve.sensitivity, expected["sensitivity"])
    np.testing.assert_array_equal(result.curve.thresholds, expected["scores"])
    names = ("true_positives", "false_positives", "false_negatives", "duplicates", "lesions")
    assert tuple(result.counts[name] for name in names) == expected["counts"]
    assert result.counts["scans"] == len(truth)
    return result


@pytest.mark.parametrize("row", [list, tuple, np.array, float32], ids=lambda row: row.__name__)
def test_equals_the_published_evaluation(row):
    for seed in range(25):
        detections, truth = random_case(seed, row)
        # Separate tests cover cases without detections or lesions.
        if any(detections.values()) and any(truth.values()):
            check(detections, truth)


@pytest.mark.parametrize("iou_thr", [0.1, 0.3, 0.7])
def test_other_thresholds(iou_thr):
    check(*random_case(3, num_volumes=20), iou_thr=iou_thr)


def test_ties_are_sorted_as_published():
    check(*random_case(5, float32, num_volumes=60, num_tracklets=40, levels=3))
    check(*random_case(6, num_volumes=60, num_tracklets=40, levels=3))


def test_rows_of_mixed_types():
    detections, truth = random_case(7, num_volumes=20)
    kinds = [list, float32, np.array, lambda row: [np.float32(v) for v in row]]
    number = iter(range(10**6))
    mixed = {
        name: [[(z, kinds[next(number) % 4](row)) for z, row in t] for t in tracklets]
        for name, tracklets in detections.items()
    }
    result = p3d_froc(mixed, truth)
    # Seven score levels are not exact in float32, so equal scores differ; the hits do not.
    counts = p3d_froc(detections, truth).counts
    for name in ("true_positives", "false_positives", "duplicates"):
        assert result.counts[name] == counts[name]


def test_published_example_file(lesion_data):
    detections = read_detections(lesion_data / "deeplesion/example_detections_train100.pkl")
    truth = read_ground_truth(lesion_data / "deeplesion/harvester/Revised-Train100.pkl")
    result = functional.p3d_froc(detections, truth)
    assert result.ap == pytest.approx(0.607307065076, abs=1e-9)
    expected = [
        *(0.433333333333, 0.469047619048, 0.530952380952, 0.616666666667),
        *(0.676190476190, 0.723809523810, 0.757142857143, 0.764285714286),
    ]
    np.testing.assert_allclose(result.sensitivity, expected, atol=1e-9)
    assert result.outside == ()


def test_tracklets_hit_or_duplicate_several_lesions():
    boxes = [[10.0, 10, 29, 29], [60.0, 60, 79, 79]]
    truth = {"a": {3: boxes[:1], 5: boxes[1:]}, "b": {}}
    tracklet = [(3, [10, 10, 29, 29, 0.2]), (4, [35, 35, 54, 54, 0.9]), (5, [60, 60, 79, 79, 0.1])]
    again = [(z, [*row[:4], row[4] / 2]) for z, row in tracklet]
    result = p3d_froc({"a": [again, tracklet]}, truth)
    assert result.counts["true_positives"] == 2
    assert result.counts["false_positives"] == 0
    assert result.counts["duplicates"] == 2
    np.testing.assert_array_equal(result.curve.thresholds, [0.9, 0.45])
    assert result.ap == 1.0  # full recall at precision 1 before the duplicates


def test_duplicates_lower_the_ap_once_per_lesion():
    box = [10.0, 10, 29, 29]
    truth = {"a": {3: [box, box]}, "b": {0: [box]}}
    detections = {
        "a": [[(3, [*box, 0.9])], [(3, [*box, 0.8])]],
        "b": [[(0, [*box, 0.7])]],
    }
    result = p3d_froc(detections, truth)
    assert result.counts["duplicates"] == 2
    assert result.ap == pytest.approx(2 / 3 + 1 / 3 * 3 / 5)


def test_iou_equal_to_the_threshold_is_a_hit():
    truth = {"a": {0: [[1, 1, 10, 10]]}}
    assert p3d_froc({"a": [[(0, [1, 1, 10, 5, 0.5])]]}, truth).counts["true_positives"] == 1
    assert p3d_froc({"a": [[(0, [1, 1, 10, 4.99, 0.5])]]}, truth).counts["true_positives"] == 0


def test_only_the_first_box_on_a_slice_is_matched():
    truth = {"a": {0: [[1, 1, 10, 10]]}}
    off, on = (0, [50, 50, 60, 60, 0.5]), (0, [1, 1, 10, 10, 0.5])
    assert p3d_froc({"a": [[off, on]]}, truth).counts["true_positives"] == 0
    assert p3d_froc({"a": [[on, off]]}, truth).counts["true_positives"] == 1


def test_points_outside_the_curve():
    box = [10.0, 10, 29, 29]
    truth = {name: {0: [box]} for name in "abcdefghij"}
    miss = [50.0, 50, 60, 60]
    detections = {
        name: [[(0, [*(box if hit else miss), score])]]
        for name, hit, score in (("a", 1, 0.9), ("b", 0, 0.8), ("c", 1, 0.7), ("d", 0, 0.6))
    }
    published_way = check(detections, truth)
    assert published_way.outside == (0.25, 0.5, 1, 2, 4, 8, 16)
    clamped = p3d_froc(detections, truth, extrapolate=False)
    assert clamped.sensitivity[0] == published_way.sensitivity[0]
    np.testing.assert_array_equal(clamped.sensitivity[1:], 0.2)


def test_extrapolation_of_a_vertical_step_is_undefined():
    box = [10.0, 10, 29, 29]
    detections = {"a": [[(0, [50, 50, 60, 60, 0.9])], [(0, [*box, 0.8])]]}
    result = check(detections, {"a": {0: [box]}})
    assert np.isinf(result.sensitivity[-1])
    assert result.to_dict()["sensitivity"]["16"] is None
    clamped = p3d_froc(detections, {"a": {0: [box]}}, extrapolate=False)
    np.testing.assert_array_equal(clamped.sensitivity, [0, 0, 0, 0, 1, 1, 1, 1])


def test_no_detections():
    result = p3d_froc({}, {"a": {0: [[1, 1, 10, 10]]}, "b": []})
    np.testing.assert_array_equal(result.sensitivity, 0)
    assert (result.ap, result.mean_sensitivity) == (0, 0)
    assert result.outside == RATES
    assert result.counts["false_negatives"] == 1
    assert p3d_froc({"a": []}, {"a": {0: [[1, 1, 10, 10]]}}).ap == 0


def test_no_lesions():
    result = p3d_froc({"a": [[(0, [1, 1, 10, 10, 0.5])]]}, {"a": {}, "b": []})
    assert np.isnan(result.sensitivity).all()
    assert np.isnan(result.ap)
    assert result.counts["false_positives"] == 1
    assert result.to_dict()["mean_sensitivity"] is None


def test_custom_operating_points():
    detections, truth = random_case(11, num_volumes=20)
    whole = p3d_froc(detections, truth)
    result = p3d_froc(detections, truth, fp_rates=(1, 2, 16))
    np.testing.assert_array_equal(result.sensitivity, whole.sensitivity[[3, 4, 7]])
    assert result.mean_rates == (1, 2)
    only = p3d_froc(detections, truth, fp_rates=(0.7,))
    assert only.mean_sensitivity == only.sensitivity[0]


GOOD = {"a": {0: [[1, 1, 10, 10]]}}


@pytest.mark.parametrize(
    ("detections", "truth", "message"),
    [
        ({}, {}, "contains no scan"),
        ({}, {"a": {}, "a.annot": {}}, "contains 'a' with and without .annot"),
        ({}, {"a": {0: [[1, 1, 10]]}}, r"'a', slice 0 has the row \[1, 1, 10\]"),
        ({}, {"a": {0: [[1, 1, 10, float("nan")]]}}, "finite"),
        ({}, {"a": {0.5: [[1, 1, 10, 10]]}}, "expected an integer"),
        ({"b": [[(0, [1, 1, 10, 10, 1.0])]]}, GOOD, "lacks, first 'b'"),
    ],
)
def test_invalid_input_is_named(detections, truth, message):
    with pytest.raises(ValueError, match=message):
        p3d_froc(detections, truth)


def test_invalid_detections_are_named():
    with pytest.raises(ValueError, match="detections of 'a' are a list; expected Tracklets"):
        functional.p3d_froc({"a": [[(0, [1, 1, 10, 10, 0.5])]]}, GOOD)
    for bad in (np.nan, np.inf):
        boxes, scores = np.array([[1, 1, 10, bad]]), np.array([bad])
        for one in ((boxes, np.ones(1)), (np.ones((1, 4)), scores)):
            found = Tracklets(*one, np.zeros(1, int), np.array([0, 1]))
            with pytest.raises(ValueError, match="detections of 'a' contain NaN or infinity"):
                functional.p3d_froc({"a": found}, GOOD)


@pytest.mark.parametrize("rates", [(), (0,), (-1,), (float("nan"),)])
def test_invalid_operating_points_are_rejected(rates):
    with pytest.raises(ValueError, match="fp_rates"):
        p3d_froc({}, GOOD, fp_rates=rates)


def test_empty_volumes_may_be_missing_from_the_ground_truth():
    assert p3d_froc({"elsewhere": []}, GOOD).counts["scans"] == 1


def test_boxes_of_a_lesion_count_once():
    box, far = [11, 11, 20, 20], [51, 51, 60, 60]
    truth = {"a": {3: [box], 4: [box, far], 5: [box]}, "b": {3: [box]}, "c": []}
    ids = {"a": {3: [1], 4: [1, None], 5: [1]}, "b": {3: [1]}}
    found = {
        "a": [[(5, [*box, 0.9])], [(3, [*box, 0.8]), (4, [*box, 0.1])], [(7, [*box, 0.7])]],
        "b": [[(4, [*box, 0.6])]],
    }
    published = p3d_froc(found, truth)
    assert published.counts["lesions"] == 5
    assert (published.counts["true_positives"], published.counts["false_positives"]) == (3, 2)
    result = p3d_froc(found, truth, lesion_ids=ids)
    # Ids are those of a volume: lesion 1 of "a", the box without an id, lesion 1 of "b".
    assert result.counts["lesions"] == 3
    # The second tracklet hits the lesion again.
    assert (result.counts["true_positives"], result.counts["duplicates"]) == (1, 1)
    assert result.counts["false_positives"] == 2
    np.testing.assert_array_equal(result.matches.lesion_hit_by, [0, -1, -1])
    np.testing.assert_array_equal(result.matches.lesion_scans, [0, 0, 1])
    assert result.ap == pytest.approx(1 / 3)
    bands = functional.bootstrap_froc(result, 20)
    assert np.isfinite(bands.mean_sensitivity.mean)


def test_ids_that_do_not_fit_the_boxes_are_rejected():
    with pytest.raises(ValueError, match="slice 3 of 'a' has 2 lesion ids and 1 boxes"):
        p3d_froc({}, {"a": {3: [[1, 1, 9, 9]]}}, lesion_ids={"a": {3: [1, 2]}})
