import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import luna16_froc
from mmdet_lesion.io import read_luna16_detections, read_luna16_findings, read_luna16_series

from .. import published

RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
COUNTS = ("true_positives", "false_positives", "false_negatives", "ignored", "duplicates")


def random_case(seed, scans=16, most=12, levels=None, size=20.0):
    """Return detections, nodules and findings in small scans, so that many of them overlap."""
    rng = np.random.default_rng(seed)
    detections, nodules, excluded = {}, {}, {}
    series = [f"1.2.{i}" for i in range(scans)]
    for name in series:
        if rng.random() < 0.8:
            rows = rng.uniform(0, size, (int(rng.integers(0, 4)), 4))
            rows[:, 3] = rng.uniform(3, 12, len(rows))
            nodules[name] = rows
        if rng.random() < 0.7:
            rows = rng.uniform(0, size, (int(rng.integers(0, 4)), 4))
            rows[:, 3] = np.where(rng.random(len(rows)) < 0.5, -1, rng.uniform(0, 8, len(rows)))
            excluded[name] = rows
        if rng.random() < 0.9:
            rows = rng.uniform(0, size, (int(rng.integers(0, most)), 4))
            rows[:, 3] = rng.random(len(rows))
            if levels:
                rows[:, 3] = np.ceil(rows[:, 3] * levels) / levels
            detections[name] = rows
    return detections, nodules, excluded, series


def check(detections, nodules, excluded, series, **settings):
    expected = published.luna16(detections, nodules, excluded, series, RATES, **settings)
    result = luna16_froc(detections, nodules, excluded, series=series, **settings)
    np.testing.assert_allclose(result.sensitivity, expected["values"], atol=1e-12, rtol=0)
    assert result.mean_sensitivity == pytest.approx(np.mean(expected["values"]), abs=1e-12)
    for name in COUNTS:
        assert result.counts[name] == expected[name], name
    assert result.counts["detections"] == expected["candidates"]
    assert result.counts["scans"] == len(series)
    return result


@pytest.mark.parametrize("levels", [None, 4])
def test_equals_the_published_evaluation(levels):
    for seed in range(25):
        check(*random_case(seed, levels=levels))


@pytest.mark.parametrize("levels", [None, 7])
def test_more_than_a_hundred_detections(levels):
    for seed in range(6):
        case = random_case(seed, scans=8, most=260, levels=levels, size=80.0)
        assert max(map(len, case[0].values())) > 100
        check(*case)


@pytest.mark.parametrize("max_detections", [1, 3])
def test_other_numbers_of_detections(max_detections):
    check(*random_case(3, levels=5), max_detections=max_detections)


def test_ties_at_the_limit_drop_all_tied_detections():
    nodule = {"a": [[0, 0, 0, 4]]}
    detections = {"a": [[50 + i, 0, 0, 0.5] for i in range(101)] + [[0, 0, 0, 0.9]]}
    result = check(detections, nodule, {}, ["a"])
    assert result.counts["detections"] == 1
    everything = luna16_froc(detections, nodule, series=["a"], max_detections=None)
    assert everything.counts["false_positives"] == 101


def test_published_example_submission(lesion_data):
    folder = lesion_data / "luna16"
    series = read_luna16_series(folder / "submissions/subset9_seriesuids.csv")
    detections = read_luna16_detections(folder / "submissions/res18_focal_subset9.csv", series)
    nodules = read_luna16_findings(folder / "annotations.csv", unique=True)
    excluded = read_luna16_findings(folder / "annotations_excluded.csv", unique=False)
    result = luna16_froc(detections, nodules, excluded, series=series)
    expected = [0.761905, 0.876190, 0.895238, 0.923810, 0.933333, 0.980952, 0.990476]
    np.testing.assert_allclose(result.sensitivity, expected, atol=5e-7)
    assert result.mean_sensitivity == pytest.approx(0.908844, abs=5e-7)
    assert result.to_dict()["cpm"] == result.mean_sensitivity
    assert [result.counts[name] for name in COUNTS] == [104, 986, 1, 358, 51]
    assert (result.counts["detections"], result.counts["scans"]) == (1499, 88)
    assert result.outside == ()
    check(detections, nodules, excluded, series)


def test_hits_are_strictly_inside_the_radius():
    nodule = {"a": [[0, 0, 0, 10]]}
    assert luna16_froc({"a": [[3, 4, 0, 0.5]]}, nodule).counts["true_positives"] == 0
    assert luna16_froc({"a": [[3, 3.999, 0, 0.5]]}, nodule).counts["true_positives"] == 1


def test_unknown_diameters_are_ten_millimeters():
    detections = {"a": [[4.9, 0, 0, 0.5], [5.1, 0, 0, 0.4]]}
    counts = luna16_froc(detections, {"a": []}, {"a": [[0, 0, 0, -1]]}).counts
    assert (counts["ignored"], counts["false_positives"]) == (1, 1)


def test_detection_of_two_nodules_hits_both():
    nodules = {"a": [[0, 0, 0, 6], [2, 0, 0, 6]]}
    result = luna16_froc({"a": [[1, 0, 0, 0.5]]}, nodules, {"a": [[1, 0, 0, -1]]})
    assert [result.counts[name] for name in COUNTS] == [2, 0, 0, 0, 0]
    # A nodule keeps its best detection even if that also hits another nodule.
    detections = {"a": [[1, 0, 0, 0.9], [3.5, 0, 0, 0.2]]}
    result = check(detections, nodules, {}, ["a"])
    np.testing.assert_array_equal(result.curve.thresholds, [np.inf, 0.9, 0.2])
    assert result.curve.sensitivity[1] == 1
    assert result.counts["duplicates"] == 1


@pytest.mark.parametrize("scans", [8, 24, 88, 104, 888])
def test_operating_point_at_a_step_reads_its_upper_end(scans):
    series = [str(i) for i in range(scans)]
    nodules = {name: [[0, 0, 0, 10]] for name in series}
    first = scans // 8
    detections = {
        name: [[90, 0, 0, 0.9 - 0.1 * i / scans]] for i, name in enumerate(series[:first])
    }
    # At exactly 0.125 false positives per scan, one more nodule is found, then a false positive.
    detections[series[0]] += [[0, 0, 0, 0.7], [95, 0, 0, 0.6]]
    result = luna16_froc(detections, nodules, series=series)
    assert result.sensitivity[0] == 1 / scans
    assert result.counts["false_positives"] == first + 1


def test_no_false_positives_detections_or_nodules():
    nodules = {"a": [[0, 0, 0, 10]], "b": [[0, 0, 0, 10]]}
    result = luna16_froc({"a": [[0, 0, 0, 0.5]]}, nodules)
    np.testing.assert_array_equal(result.sensitivity, 0.5)
    assert result.outside == RATES
    result = luna16_froc({}, nodules)
    np.testing.assert_array_equal(result.sensitivity, 0)
    assert result.counts["false_negatives"] == 2
    result = luna16_froc({"a": [[0, 0, 0, 0.5]]}, {}, series=["a"])
    assert np.isnan(result.mean_sensitivity)
    assert result.to_dict()["cpm"] is None


def test_only_listed_scans_are_evaluated():
    nodules = {"a": [[0, 0, 0, 10]], "elsewhere": [[0, 0, 0, 10]]}
    result = luna16_froc({"a": [[0, 0, 0, 0.5]]}, nodules, {"elsewhere": []}, series=["a", "b"])
    assert (result.counts["lesions"], result.counts["scans"]) == (1, 2)


@pytest.mark.parametrize(
    ("detections", "nodules", "series", "message"),
    [
        ({}, {}, None, "contains no scan"),
        ({}, {}, ["a", "b", "a"], "contains 'a' twice"),
        ({"b": [[0, 0, 0, 1]]}, {"a": []}, None, "not among the scans, first 'b'"),
        (
            {"a": [[0, 0, 0]]},
            {"a": []},
            None,
            "'a' are malformed; expected rows of four",
        ),
        (
            {"a": [[0, 0, 0, "x"]]},
            {"a": []},
            None,
            "'a' are malformed; expected rows of four",
        ),
        ({}, {"a": [[0, 0, np.nan, 3]]}, None, "nodules of 'a' contain NaN"),
    ],
)
def test_invalid_input_is_named(detections, nodules, series, message):
    with pytest.raises(ValueError, match=message):
        luna16_froc(detections, nodules, series=series)


def test_invalid_limit_is_rejected():
    with pytest.raises(ValueError, match="max_detections is 0"):
        luna16_froc({}, {"a": []}, max_detections=0)
