import pytest
import torch

from mmdet_lesion.engine.hooks.mining_statistics import MiningStatistics


def test_precision_and_recall_by_hand():
    statistics = MiningStatistics()
    hidden = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]])
    # A hit, its double, and a false positive; two of three hidden lesions stay unmined.
    mined = torch.tensor([[0.0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 1.0, 0.95])
    # The second box repeats a labeled lesion; 0.3 itself is no repeat.
    statistics.add(mined, scores, scores, hidden, torch.tensor([0.0, 0.6, 0.3]))
    none = torch.zeros(0)
    statistics.add(torch.zeros(0, 4), none, torch.tensor([0.97]), torch.zeros(0, 4), none)
    figures = statistics.flush()
    assert figures["mined_per_image"] == pytest.approx(1.5)
    assert figures["mined_repeats"] == pytest.approx(0.5)
    assert figures["mined_score"] == pytest.approx(0.95)
    assert figures["mining_precision"] == pytest.approx(1 / 3)
    assert figures["mining_recall"] == pytest.approx(1 / 3)
    assert figures["best_unlabelled_score"] == pytest.approx(1.0)


def test_flush_begins_anew():
    statistics = MiningStatistics()
    statistics.add(torch.zeros(1, 4), torch.ones(1), torch.ones(1), None, torch.zeros(1))
    statistics.flush()
    assert statistics.flush() == {
        "mined_per_image": 0.0,
        "mined_repeats": 0.0,
        "best_unlabelled_score": 0.0,
    }


def test_unknown_truth_is_not_judged():
    statistics = MiningStatistics()
    statistics.add(torch.zeros(1, 4), torch.ones(1), torch.ones(1), None, torch.zeros(1))
    assert "mining_precision" not in statistics.flush()
