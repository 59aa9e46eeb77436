import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS

from mmdet_lesion.models.task_modules import SliceLinker


def box(x, y=10.0, side=20.0):
    return [x, y, x + side, y + side]


def link(rows, **settings):
    """Link rows of ``(slice, box, score)``; return ``[{slice: score}, ...]``."""
    slices, boxes, scores = zip(*rows, strict=True)
    linked = TASK_UTILS.build(dict(type="SliceLinker", **settings))(boxes, scores, slices)
    return [{z: row[4] for z, row in tracklet} for tracklet in linked.to_harvester()]


def test_two_adjacent_lesions():
    rows = [(z, box(10.0 + z), 0.5) for z in range(4)] + [(z, box(60.0 - z), 0.7) for z in range(4)]
    assert link(rows) == [dict.fromkeys(range(4), 0.5), dict.fromkeys(range(4), 0.7)]


def test_order_of_boxes_does_not_matter():
    rng = np.random.default_rng(0)
    rows = [(z, box(40.0 * lesion + z), 0.1 * lesion) for z in range(6) for lesion in range(4)]
    shuffled = [rows[i] for i in rng.permutation(len(rows))]
    assert sorted(map(str, link(rows))) == sorted(map(str, link(shuffled)))


def test_max_gap():
    rows = [(0, box(10.0), 0.5), (1, box(10.0), 0.5), (4, box(10.0), 0.5)]
    assert len(link(rows, max_gap=2)) == 1
    assert len(link(rows, max_gap=1)) == 2
    assert len(link(rows[:2], max_gap=0)) == 1


def test_min_length():
    rows = [(0, box(10.0), 0.5), (1, box(10.0), 0.5), (1, box(80.0), 0.9)]
    assert link(rows, min_length=2) == [{0: 0.5, 1: 0.5}]
    assert link(rows, min_length=3) == []


def test_iou_threshold():
    rows = [(0, box(10.0), 0.5), (1, box(20.0), 0.5)]  # IoU 1/3
    assert len(link(rows, iou_thr=0.3)) == 1
    assert len(link(rows, iou_thr=0.4)) == 2


def test_motion_is_predicted():
    # An oblique vessel: 9 px per slice leave an IoU of 0.38, and of 0 after a gap
    # unless the motion is predicted.
    rows = [(z, box(9.0 * z), 0.5) for z in (0, 1, 2, 3, 4, 5, 7, 8)]
    assert len(link(rows, max_gap=1)) == 1


def test_assignment_maximizes_the_sum_of_ious():
    # The first box overlaps both, the second only the left one: a greedy assignment loses a link.
    rows = [(0, box(0.0), 0.1), (0, box(14.0), 0.2), (1, box(5.0), 0.3), (1, box(-9.0), 0.4)]
    assert link(rows, iou_thr=0.2) == [{0: 0.1, 1: 0.4}, {0: 0.2, 1: 0.3}]


def test_at_most_one_box_per_slice_and_tracklet():
    rows = [(z, box(10.0 + i), 0.5) for z in range(3) for i in range(3)]
    linked = link(rows)
    assert len(linked) == 3
    assert all(sorted(tracklet) == [0, 1, 2] for tracklet in linked)


def test_every_box_is_kept_once():
    rng = np.random.default_rng(1)
    slices = rng.integers(0, 40, 800)
    low = rng.uniform(0, 100, (800, 2))
    boxes = np.hstack((low, low + rng.uniform(5, 40, (800, 2))))
    scores = rng.random(800)
    linked = SliceLinker(max_gap=2)(boxes, scores, slices)
    np.testing.assert_array_equal(np.sort(linked.scores), np.sort(scores))
    again = SliceLinker(max_gap=2)(boxes, scores, slices)
    np.testing.assert_array_equal(linked.scores, again.scores)


def test_empty_input_and_tensors():
    linker = SliceLinker()
    assert len(linker(np.empty((0, 4)), np.empty(0), np.empty(0, int))) == 0
    assert len(linker(torch.empty(0, 4), torch.empty(0), torch.empty(0, dtype=torch.long))) == 0
    assert len(linker(torch.tensor([box(1.0)]), torch.tensor([0.5]), torch.tensor([3]))) == 1


@pytest.mark.parametrize(
    "settings", [dict(max_gap=-1), dict(min_length=0), dict(iou_thr=0), dict(iou_thr=1.5)]
)
def test_invalid_settings(settings):
    with pytest.raises(ValueError, match="SliceLinker"):
        SliceLinker(**settings)
