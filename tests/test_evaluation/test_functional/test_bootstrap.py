import dataclasses
import json
import math

import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import (
    bootstrap_froc,
    box3d_froc,
    compare_froc,
    compare_trainings,
    luna16_froc,
    slice_froc,
)

from ...nested import p3d_froc
from .. import published
from . import test_boxes3d, test_luna16, test_p3d

LUNA16_RATES = (0.125, 0.25, 0.5, 1, 2, 4, 8)
ROUNDS = 40


def draws(num_groups, rounds, seed=0):
    """Return the groups drawn in each round."""
    rng = np.random.default_rng(seed)
    return [rng.integers(num_groups, size=num_groups) for _ in range(rounds)]


def percentiles(samples):
    """Return the band of the published script: two entries of the sorted samples."""
    ordered = np.sort(samples, axis=0)
    tail = (1.0 - 0.95) / 2.0
    return ordered[math.floor(tail * len(samples))], ordered[math.floor((1 - tail) * len(samples))]


def check(band, samples):
    low, high = percentiles(samples)
    np.testing.assert_allclose(band.mean, np.mean(samples, axis=0), atol=1e-12)
    np.testing.assert_allclose(band.low, low, atol=1e-12)
    np.testing.assert_allclose(band.high, high, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 4])
def test_luna16_equals_evaluating_repeated_scans(levels):
    detections, nodules, excluded, series = test_luna16.random_case(1, levels=levels)
    entries = published.luna16(detections, nodules, excluded, series, LUNA16_RATES)["entries"]
    samples = []
    for drawn in draws(len(series), ROUNDS):
        again = published.resampled(entries, series, drawn)
        samples.append(published.luna16_figures(again, len(series), LUNA16_RATES)["values"])
    bootstrap = bootstrap_froc(luna16_froc(detections, nodules, excluded, series=series), ROUNDS)
    check(bootstrap.sensitivity, samples)
    check(bootstrap.mean_sensitivity, np.mean(samples, axis=1))
    assert bootstrap.ap is None


def test_box3d_equals_evaluating_repeated_volumes():
    detections, truth = test_boxes3d.random_case(2, levels=10**6)
    samples = []
    for drawn in draws(len(truth), ROUNDS):
        copies = dict(enumerate(drawn))
        values = box3d_froc(
            {copy: detections[i] for copy, i in copies.items()},
            {copy: truth[i] for copy, i in copies.items()},
        ).sensitivity
        samples.append(values)
    check(bootstrap_froc(box3d_froc(detections, truth), ROUNDS).sensitivity, samples)


def test_p3d_and_its_ap_equal_evaluating_repeated_volumes():
    detections, truth = test_p3d.random_case(4, num_volumes=20, levels=10**6)
    # Duplicates in two copies could interleave in the AP, so all lesions are far apart.
    truth = {
        name: {z: rows[:1] for z, rows in list(by_slice.items())[:1]}
        for name, by_slice in truth.items()
    }
    names = [name.removesuffix(".annot") for name in truth]
    samples, aps = [], []
    for drawn in draws(len(names), ROUNDS):
        result = p3d_froc(
            {f"{n}": detections.get(names[i], []) for n, i in enumerate(drawn)},
            {f"{n}": truth[names[i] + ".annot"] for n, i in enumerate(drawn)},
            extrapolate=False,
        )
        samples.append(result.sensitivity)
        aps.append(result.ap)
    bootstrap = bootstrap_froc(p3d_froc(detections, truth, extrapolate=False), ROUNDS)
    check(bootstrap.sensitivity, samples)
    check(bootstrap.mean_sensitivity, np.array(samples)[:, :7].mean(axis=1))
    check(bootstrap.ap, aps)


def test_groups_are_resampled_as_a_whole():
    detections, truth = test_boxes3d.random_case(6, levels=10**6)
    groups = ["p", "q", "q", "r", "p", "s", "t", "t", "t", "u", "v", "w"]
    numbers = "pqrstuvw"
    samples = []
    for drawn in draws(len(numbers), ROUNDS):
        picked = [i for group in drawn for i, own in enumerate(groups) if own == numbers[group]]
        samples.append(
            box3d_froc(
                {copy: detections[i] for copy, i in enumerate(picked)},
                {copy: truth[i] for copy, i in enumerate(picked)},
            ).sensitivity
        )
    check(bootstrap_froc(box3d_froc(detections, truth), ROUNDS, groups=groups).sensitivity, samples)


def test_resampling_a_single_scan_gives_its_figures():
    box = [1, 1, 10, 10]
    result = slice_froc({0: [[*box, 0.5]]}, {0: [box, [50, 50, 60, 60]]})
    bootstrap = bootstrap_froc(result, 5, curve_rates=[0.1, 3])
    for end in ("mean", "low", "high"):
        np.testing.assert_array_equal(getattr(bootstrap.sensitivity, end), 0.5)
        np.testing.assert_array_equal(getattr(bootstrap.curve, end), [0.5, 0.5])


def test_rounds_without_lesions_are_omitted():
    box = [1, 1, 10, 10]
    truth = {0: [box], 1: [], 2: []}
    bootstrap = bootstrap_froc(slice_froc({0: [[*box, 0.5]]}, truth), 200)
    without = sum(0 not in drawn for drawn in draws(3, 200))
    assert bootstrap.undefined == without > 0
    np.testing.assert_array_equal(bootstrap.sensitivity.low, 1)
    none = bootstrap_froc(slice_froc({}, {0: []}), 3)
    assert none.undefined == 3
    assert none.to_dict()["mean_sensitivity"]["mean"] is None


def test_undefined_extrapolation_uses_the_last_sensitivity():
    box = [10.0, 10, 29, 29]
    detections = {"a": [[(0, [50, 50, 60, 60, 0.9])], [(0, [*box, 0.8])]]}
    result = p3d_froc(detections, {"a": {0: [box]}})
    assert np.isinf(result.sensitivity[-1])
    assert bootstrap_froc(result, 3).sensitivity.mean[-1] == 1


def test_results_depend_on_the_seed():
    result = box3d_froc(*test_boxes3d.random_case(3))
    one, same, other = (
        json.dumps(bootstrap_froc(result, 20, seed=seed).to_dict()) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_paired_differences():
    detections, truth = test_boxes3d.random_case(7, volumes=30, levels=10**6)
    rng = np.random.default_rng(0)
    worse = {key: rows.copy() for key, rows in detections.items()}
    for rows in worse.values():
        rows[:, 6] = rng.random(len(rows)) * rows[:, 6]
    first, second = (box3d_froc(found, truth) for found in (detections, worse))
    differences = []
    for drawn in draws(len(truth), 60, seed=3):
        copies = dict(enumerate(drawn))
        values = [
            box3d_froc(
                {copy: found[i] for copy, i in copies.items()},
                {copy: truth[i] for copy, i in copies.items()},
            ).sensitivity
            for found in (detections, worse)
        ]
        differences.append(values[1] - values[0])
    comparison = compare_froc(first, second, 60, seed=3)
    check(comparison.sensitivity.band, differences)
    np.testing.assert_array_equal(
        comparison.sensitivity.value, second.sensitivity - first.sensitivity
    )
    means = np.mean(differences, axis=1)
    tail = min((means <= 1e-12).sum(), (means >= -1e-12).sum())
    assert comparison.mean_sensitivity.p_value == min(1, 2 * (tail + 1) / 61)
    points = comparison.to_dict()["sensitivity"]
    assert set(points["0.125"]) == {"difference", "p_value", "mean", "low", "high"}


def test_difference_of_equal_detectors_is_zero():
    result = p3d_froc(*test_p3d.random_case(3, num_volumes=20))
    comparison = compare_froc(result, result, 30)
    assert comparison.mean_sensitivity.p_value == 1
    assert comparison.ap.value == comparison.ap.band.high == 0


def test_p_value_is_limited_by_the_number_of_rounds():
    box = [1, 1, 10, 10]
    truth = {i: [box] for i in range(10)}
    good = slice_froc({i: [[*box, 0.5]] for i in truth}, truth)
    comparison = compare_froc(slice_froc({}, truth), good, 99)
    assert comparison.mean_sensitivity.value == 1
    assert comparison.mean_sensitivity.p_value == 2 / 100


@pytest.mark.parametrize(
    ("rounds", "settings", "message"),
    [
        (0, {}, "rounds is 0"),
        (5, {"confidence": 1.0}, "confidence is 1.0"),
        (5, {"groups": ["a"]}, "1 groups for 12 scans"),
    ],
)
def test_invalid_arguments_are_rejected(rounds, settings, message):
    result = box3d_froc(*test_boxes3d.random_case(0))
    with pytest.raises(ValueError, match=message):
        bootstrap_froc(result, rounds, **settings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "iou"}, "the protocol 'box3d' and 'iou'"),
        ({"settings": {}}, "expected the same settings"),
        ({"scans": ("x",)}, "have other scans"),
    ],
)
def test_results_of_other_protocols_are_not_compared(change, message):
    result = box3d_froc(*test_boxes3d.random_case(0))
    with pytest.raises(ValueError, match=message):
        compare_froc(result, dataclasses.replace(result, **change), 5)


def test_band_over_several_trainings_includes_their_variation():
    box = [10.0, 10, 30, 30]
    truth = {f"{i:06d}_01_01_000-010": {3: [box]} for i in range(8)}
    everything = {name: [[(3, [*box, 0.9])]] for name in truth}
    nothing = {name: [] for name in truth}
    found, missed = (p3d_froc(one, truth, extrapolate=False) for one in (everything, nothing))
    # In half of the trainings, the second detector finds all lesions that the first one misses.
    alike, better = (found, found), (missed, found)
    for pairs, value in (([better] * 4, 1.0), ([alike] * 4, 0.0)):
        certain = compare_trainings(pairs, 100).mean_sensitivity
        assert (certain.value, certain.band.low, certain.band.high) == (value, value, value)
    mixed = compare_trainings([alike, better] * 2, 400)
    for difference in (mixed.mean_sensitivity, mixed.ap):
        assert difference.value == 0.5
        assert (difference.band.low, difference.band.high) == (0.0, 1.0)
    # With a single training, only the scans vary.
    detections, truth = test_p3d.random_case(3, levels=10**6)
    some = dict(list(detections.items())[:3])
    pair = [p3d_froc(one, truth, extrapolate=False) for one in (some, detections)]
    alone, scans = compare_trainings([pair], 100), compare_froc(*pair, 100)
    assert alone.mean_sensitivity.band.mean == pytest.approx(scans.mean_sensitivity.band.mean)
    with pytest.raises(ValueError, match="pairs is empty"):
        compare_trainings([])
