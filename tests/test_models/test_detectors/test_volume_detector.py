import numpy as np

from mmdet_lesion.models.detectors.volume_detector import boxes_of_tracklets
from mmdet_lesion.structures import Tracklets


def tracklets(rows):
    """Build tracklets from rows of slice, half size, score and tracklet."""
    slices, halves, scores, ids = np.array(rows, dtype=float).T
    halves = halves[:, None]
    boxes = np.hstack((50 - halves, 50 - halves, 50 + halves, 50 + halves))
    return Tracklets.from_ids(boxes, scores, slices.astype(int), ids.astype(int))


def test_key_slice_is_that_of_the_largest_section():
    # A sphere around slice 55 that scores best on slice 44.
    z = np.arange(40, 71)
    halves = np.sqrt(16.0**2 - (z - 55) ** 2)
    scores = 0.9 - 0.01 * np.abs(z - 44)
    found = boxes_of_tracklets(tracklets(list(zip(z, halves, scores, np.zeros(31)))), 0.3)
    assert found.key_slices.tolist() == [55]
    assert found.scores.tolist() == [0.9]


def test_middle_of_equal_sections_is_the_key_slice_of_each_tracklet():
    rows = [(z, 5 + 1e-3 * z, 0.5, 0) for z in range(10, 15)]
    rows += [(z, 4 - (z == 3), 0.8, 1) for z in range(3, 8)]
    found = boxes_of_tracklets(tracklets(rows), 0)
    assert found.key_slices.tolist() == [12, 5]
