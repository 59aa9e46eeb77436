import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import box3d_froc, slice_froc, stratify_froc

from ...nested import p3d_froc
from .test_boxes3d import random_case


def test_hits_on_lesions_of_other_strata_are_ignored():
    small, large = [1, 1, 10, 10], [50, 50, 90, 90]
    found = {
        "a": [[*small, 0.9], [*large, 0.8], [200, 200, 210, 210, 0.7], [*small, 0.6]],
        "b": [[*large, 0.5]],
    }
    result = slice_froc(found, {"a": [small, large], "b": [small]})
    parts = stratify_froc(result, ["small", "large", "small"])
    assert list(parts) == ["small", "large"]
    counts = {label: part.counts for label, part in parts.items()}
    assert counts["small"] == {
        "true_positives": 1,
        "false_positives": 2,
        "false_negatives": 1,
        "ignored": 1,
        "duplicates": 1,
        "detections": 5,
        "scans": 2,
        "lesions": 2,
    }
    assert (counts["large"]["true_positives"], counts["large"]["false_negatives"]) == (1, 0)
    assert (counts["large"]["ignored"], counts["large"]["duplicates"]) == (2, 0)


def test_strata_sum_to_the_total():
    for seed in range(5):
        detections, truth = random_case(seed)
        result = box3d_froc(detections, truth)
        labels = np.random.default_rng(seed).integers(0, 3, result.counts["lesions"]).tolist()
        parts = stratify_froc(result, labels).values()
        for name in ("true_positives", "false_negatives", "lesions", "duplicates"):
            assert sum(part.counts[name] for part in parts) == result.counts[name]
        for part in parts:
            assert part.counts["false_positives"] == result.counts["false_positives"]
        weights = [part.counts["lesions"] for part in parts]
        mixed = np.average([part.sensitivity for part in parts], axis=0, weights=weights)
        np.testing.assert_allclose(mixed, result.sensitivity, atol=1e-12)


def test_single_stratum_equals_the_total():
    box = [10.0, 10, 29, 29]
    result = p3d_froc({"a": [[(0, [*box, 0.5])]]}, {"a": {0: [box]}, "b": {1: [box]}})
    (part,) = stratify_froc(result, ["all", "all"]).values()
    assert part.to_dict() == result.to_dict()


def test_number_of_labels_is_checked():
    with pytest.raises(ValueError, match="1 labels for 0 lesions"):
        stratify_froc(slice_froc({}, {0: []}), ["x"])
