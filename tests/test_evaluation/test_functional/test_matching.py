import numpy as np

from mmdet_lesion.evaluation.functional.matching import (
    inclusive_iou,
    match_detections,
    pairs_on_same_place,
)


def test_iou_counts_pixels_inclusively():
    lesions = np.array([[1, 1, 10, 10], [1, 1, 10, 10], [1, 1, 1, 1]])
    boxes = np.array([[1, 1, 10, 5], [11, 1, 20, 10], [1, 1, 1, 1]])
    np.testing.assert_array_equal(inclusive_iou(boxes, lesions), [0.5, 0, 1])


def test_pairs_of_boxes_on_the_same_slice():
    boxes, lesions = pairs_on_same_place(np.array([5, 2, 9, 2]), np.array([2, 7, 5, 2]))
    assert list(zip(boxes.tolist(), lesions.tolist(), strict=True)) == [
        *((0, 2), (1, 0), (1, 3)),
        *((3, 0), (3, 3)),
    ]
    for empty in pairs_on_same_place(np.array([1]), np.array([], int)):
        assert not len(empty)


def test_detection_with_the_highest_score_is_the_hit():
    scores, scans = np.array([0.1, 0.9, 0.5]), np.array([0, 0, 1])
    pairs = np.array([0, 1, 1]), np.array([0, 0, 0])
    matches = match_detections(scores, scans, pairs, np.array([0, 1]), 3)
    np.testing.assert_array_equal(matches.scores, [0.9, 0.5, 0.1])
    np.testing.assert_array_equal(matches.scans, [0, 1, 0])
    np.testing.assert_array_equal(matches.hits, [1, 0, 0])
    np.testing.assert_array_equal(matches.misses, [False, True, False])
    np.testing.assert_array_equal(matches.duplicates, [0, 0, 1])
    np.testing.assert_array_equal(matches.lesion_hit_by, [0, -1])
