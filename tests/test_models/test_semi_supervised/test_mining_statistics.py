import pytest
import torch

from mmdet_lesion.models.semi_supervised import MinedLesions, MiningStatistics


def mined_lesions(bboxes, scores, candidate_scores=None, gt_iou=None):
    bboxes = torch.tensor(bboxes, dtype=torch.float32).reshape(-1, 4)
    scores = torch.tensor(scores)
    return MinedLesions(
        bboxes=bboxes,
        projected=bboxes,
        scores=scores,
        labels=torch.zeros(len(bboxes), dtype=torch.long),
        candidate_scores=scores if candidate_scores is None else torch.tensor(candidate_scores),
        gt_iou=torch.zeros(len(bboxes)) if gt_iou is None else torch.tensor(gt_iou),
    )


def test_precision_and_recall():
    statistics = MiningStatistics()
    hidden = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]])
    # A hit, its duplicate, and a false positive; two of three hidden lesions are not mined.
    bboxes = [[0, 0, 10, 9], [0, 0, 10, 10], [20, 20, 30, 30]]
    # The second box repeats an annotated lesion; an IoU of 0.3 does not count as a repeat.
    mined = mined_lesions(bboxes, [0.9, 1.0, 0.95], gt_iou=[0.0, 0.6, 0.3])
    statistics.add(mined, hidden)
    statistics.add(mined_lesions([], [], candidate_scores=[0.97]), torch.zeros(0, 4))
    figures = statistics.flush()
    assert figures["mined_per_image"] == pytest.approx(1.5)
    assert figures["mined_repeats"] == pytest.approx(0.5)
    assert figures["mined_score"] == pytest.approx(0.95)
    assert figures["mining_precision"] == pytest.approx(1 / 3)
    assert figures["mining_recall"] == pytest.approx(1 / 3)
    assert figures["best_candidate_score"] == pytest.approx(1.0)


def test_flush_resets_and_omits_unknown_hidden_lesions():
    statistics = MiningStatistics()
    statistics.add(mined_lesions([[0, 0, 1, 1]], [1.0]), None)
    assert "mining_precision" not in statistics.flush()
    assert statistics.flush() == {
        "mined_per_image": 0.0,
        "mined_repeats": 0.0,
        "best_candidate_score": 0.0,
    }


def test_verified_boxes_are_counted_separately():
    statistics = MiningStatistics()
    hidden = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60]])
    bboxes = [[0, 0, 10, 9], [50, 50, 60, 60], [20, 20, 30, 30]]
    mined = mined_lesions(bboxes, [0.9, 1.0, 0.95])
    # Verified are one hit and the false positive.
    statistics.add(mined, hidden, torch.tensor([True, False, True]))
    # The hidden lesions of this image are not known.
    statistics.add(mined_lesions(bboxes[:1], [0.9]), None, torch.tensor([True]))
    figures = statistics.flush()
    assert figures["mined_per_image"] == 2
    assert figures["mining_precision"] == pytest.approx(2 / 3)
    assert figures["mining_recall"] == 1
    assert figures["verified_per_image"] == pytest.approx(3 / 2)
    assert figures["verified_precision"] == pytest.approx(1 / 2)
    assert figures["verified_recall"] == pytest.approx(1 / 2)


def test_figures_if_nothing_is_verified():
    statistics = MiningStatistics()
    mined = mined_lesions([[0, 0, 10, 10]], [0.9])
    statistics.add(mined, torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([False]))
    figures = statistics.flush()
    assert (figures["verified_per_image"], figures["verified_recall"]) == (0, 0)
    assert "verified_precision" not in figures
    assert figures["mining_precision"] == 1


def test_dropped_hard_negatives_per_image_with_hard_negatives():
    statistics = MiningStatistics()
    for dropped in (None, 3, 0, None):
        mined = mined_lesions([], [])
        mined.hard_negatives = dropped
        statistics.add(mined, None)
    assert statistics.flush()["dropped_hard_negatives"] == pytest.approx(1.5)
    assert "dropped_hard_negatives" not in statistics.flush()
