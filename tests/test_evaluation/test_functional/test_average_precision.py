import numpy as np
import pytest

from mmdet_lesion.evaluation.functional import average_precision

from ..published import voc_ap


def test_expected_value():
    # Hit, miss, hit of two objects: precision 1, 1/2, 2/3; the envelope raises 1/2 to 2/3.
    assert average_precision([0.5, 0.5, 1.0], [1, 0.5, 2 / 3]) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_unreached_recall_counts_as_zero():
    assert average_precision([0.5], [1.0]) == 0.5


def test_no_detections_and_no_objects():
    assert average_precision([], []) == 0
    assert np.isnan(average_precision([np.nan], [0.0]))


def test_equals_a_loop():
    rng = np.random.default_rng(0)
    hits = rng.random(300) < 0.3
    recall = hits.cumsum() / 120
    precision = hits.cumsum() / np.arange(1, 301)
    assert average_precision(recall, precision) == pytest.approx(voc_ap(recall, precision))


def test_lengths_must_agree():
    with pytest.raises(ValueError, match="one precision per detection"):
        average_precision([0.5, 1], [1])
