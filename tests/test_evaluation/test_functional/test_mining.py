"""Selection and evaluation of mined tracklets, by hand."""

import numpy as np
import pytest

from mmdet_lesion.evaluation.functional.mining import (
    hidden_lesions,
    largest_iou,
    mining_curve,
    propagated,
    select_unannotated,
)
from mmdet_lesion.structures import Tracklets

# 10 x 10 pixels, counted inclusively.
BOX = [1.0, 1.0, 10.0, 10.0]
#: The same, moved by 5 pixels: IoU 1/3.
SHIFTED = [6.0, 1.0, 15.0, 10.0]
FAR = [101.0, 101.0, 110.0, 110.0]


def tracklet(box, *scores, start=3):
    return [(start + k, [*box, score]) for k, score in enumerate(scores)]


def tracklets(*found):
    return Tracklets.from_harvester(list(found))


def rows(*boxes):
    return np.array(boxes, dtype=np.float64).reshape(-1, 5)


def test_largest_iou_on_any_slice():
    found = tracklets(tracklet(BOX, 0.5, 0.6), tracklet(FAR, 0.9), tracklet(SHIFTED, 0.8))
    annotated = rows([4, *SHIFTED], [3, *SHIFTED], [9, *FAR])
    np.testing.assert_allclose(largest_iou(found, annotated), [1 / 3, 0, 1])
    assert largest_iou(found, rows()).tolist() == [0, 0, 0]
    assert largest_iou(Tracklets.empty(), annotated).shape == (0,)


def test_annotations_suppress_whatever_the_score():
    found = tracklets(tracklet(SHIFTED, 0.99), tracklet(FAR, 0.9), tracklet(BOX, 0.95, start=8))
    annotated = rows([3, *BOX])
    assert select_unannotated(found, annotated, iou_thr=0.3).tolist() == [2, 1]
    assert select_unannotated(found, annotated, iou_thr=0.34).tolist() == [0, 2, 1]
    assert select_unannotated(found, annotated, iou_thr=0.3, score_thr=0.95).tolist() == [2]


def test_kept_tracklets_suppress_others():
    # The first is suppressed by the second, and then cannot suppress the third.
    found = tracklets(
        tracklet(SHIFTED, 0.8, 0.8),
        tracklet(BOX, 0.9),
        tracklet([11.0, 1.0, 20.0, 10.0], 0.7, start=4),
    )
    assert select_unannotated(found, rows(), iou_thr=0.3).tolist() == [1, 2]
    assert select_unannotated(found, rows(), iou_thr=0.5).tolist() == [1, 0, 2]


def test_a_dropped_tracklet_suppresses_nothing():
    found = tracklets(tracklet(BOX, 0.9, 0.9), tracklet(SHIFTED, 0.8, start=4))
    # On slice 3 the first one is an annotated lesion.
    assert select_unannotated(found, rows([3, *BOX]), iou_thr=0.3).tolist() == [1]


def test_propagated_boxes():
    found = tracklets(tracklet(FAR, 0.9, 0.8), tracklet(BOX, 0.5, 0.9, 0.8, 0.3))
    annotated = rows([4, *BOX], [3, *SHIFTED])
    kept = propagated(found, annotated, iou_thr=0.5, score_thr=0.4)
    assert len(kept) == 1
    assert kept.slices.tolist() == [3, 5] and kept.scores.tolist() == [0.5, 0.8]
    # The IoU with the annotation of slice 3 is 1/3.
    kept = propagated(found, annotated, iou_thr=0.3)
    assert kept.slices.tolist() == [5, 6]
    assert len(propagated(found, rows([3, *SHIFTED]), iou_thr=0.5)) == 0
    assert len(propagated(Tracklets.empty(), annotated, iou_thr=0.5)) == 0


def test_hidden_lesions():
    truth = rows([3, *BOX], [4, *BOX], [3, *FAR], [5, *FAR])
    ids = ["a", "a", None, None]
    # The annotation of slice 4 makes the whole lesion known; one of slice 3 elsewhere does not.
    annotated = rows([4, *BOX], [3, *SHIFTED])
    assert hidden_lesions(truth, ids, annotated).tolist() == [False, False, True, True]
    assert hidden_lesions(truth, ids, rows()).all()
    assert hidden_lesions(rows(), [], annotated).shape == (0,)


def test_precision_and_recall():
    mined = {
        "one": tracklets(tracklet(BOX, 0.9), tracklet(FAR, 0.8), tracklet(BOX, 0.6, start=4)),
        "two": tracklets(tracklet(FAR, 0.7)),
    }
    hidden = {"one": rows([3, *BOX], [4, *BOX]), "two": rows([3, *FAR]), "three": rows([1, *BOX])}
    ids = {"one": ["a", "a"], "two": [None], "three": [None]}
    curve = mining_curve(mined, hidden, ids)
    assert curve.hidden == 3
    np.testing.assert_allclose(curve.scores, [0.9, 0.8, 0.7, 0.6])
    # The last one hits the first lesion again.
    np.testing.assert_allclose(curve.precision, [1, 1 / 2, 2 / 3, 2 / 3])
    np.testing.assert_allclose(curve.recall, [1 / 3, 1 / 3, 2 / 3, 2 / 3])
    assert curve.at(0.8) == (2, 0.5, pytest.approx(1 / 3))
    assert curve.at(0.85) == (1, 1.0, pytest.approx(1 / 3))
    count, precision, recall = curve.at(0.95)
    assert count == recall == 0 and np.isnan(precision)
