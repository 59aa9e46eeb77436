import threading

import numpy as np
import pytest

from mmdet_lesion.models.detectors.volume_detector import boxes_of_tracklets, read_ahead
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


def test_the_next_part_is_read_while_one_is_used():
    reading = threading.Event()

    def read(start, stop):
        if start == 2:
            reading.set()
        return dict(range=(start, stop))

    parts = read_ahead(read, [(0, 2), (2, 4)])
    assert next(parts) == dict(range=(0, 2))
    assert reading.wait(timeout=60)
    assert list(parts) == [dict(range=(2, 4))]


def test_errors_of_reading_are_raised_at_their_part():
    def read(start, stop):
        if start == 2:
            raise OSError("cannot read")
        return start

    parts = read_ahead(read, [(0, 2), (2, 4), (4, 6)])
    assert next(parts) == 0
    with pytest.raises(OSError, match="cannot read"):
        next(parts)
