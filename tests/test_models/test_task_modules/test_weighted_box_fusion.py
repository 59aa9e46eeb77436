"""Tests of weighted box fusion: clusters, weighted coordinates and scores."""

import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from mmdet_lesion import InputError
from mmdet_lesion.models.task_modules.weighted_box_fusion import fuse_boxes


def build(**settings):
    return TASK_UTILS.build(dict(type="WeightedBoxFusion", **settings))


def prediction(boxes, scores, slices=None, labels=None):
    instances = InstanceData(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(len(scores), -1)
        if len(boxes)
        else torch.empty(0, 6 if slices is None else 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels or [0] * len(scores), dtype=torch.long),
    )
    if slices is not None:
        instances.slice_inds = torch.tensor(slices, dtype=torch.long)
    return instances


def test_two_models_agree_and_one_disagrees():
    here, there = [0, 0, 0, 10, 10, 10], [30, 30, 30, 40, 40, 40]
    found = build()(
        [prediction([here], [0.9]), prediction([there], [0.6]), prediction([here], [0.6])]
    )
    assert found.bboxes.tolist() == [here, there]
    # (0.9 + 0.6) / 3 and 0.6 / 3
    torch.testing.assert_close(found.scores, torch.tensor([0.5, 0.2]))
    assert found.labels.tolist() == [0, 0]


def test_shifted_boxes_are_weighted_by_their_scores():
    # IoU 8 * 10 * 10 / (12 * 10 * 10) = 0.67 in 3D, as well as in 2D.
    one, other = [0, 0, 0, 10, 10, 10], [2, 0, 0, 12, 10, 10]
    found = build()([prediction([one], [0.9]), prediction([other], [0.3])])
    torch.testing.assert_close(found.bboxes, torch.tensor([[0.5, 0, 0, 10.5, 10, 10]]))
    torch.testing.assert_close(found.scores, torch.tensor([0.6]))
    flat = [prediction([[*box[:2], *box[3:5]]], [score], [3])
            for box, score in ((one, 0.9), (other, 0.3))]  # fmt: skip
    found = build()(flat)
    torch.testing.assert_close(found.bboxes, torch.tensor([[0.5, 0, 10.5, 10]]))
    assert found.slice_inds.tolist() == [3]


def test_box_joins_the_fused_box_and_not_its_first_box():
    """The third box overlaps the second one more than the first one."""
    boxes = [[0, 0, 0, 10, 10, 10], [4, 0, 0, 14, 10, 10], [6, 0, 0, 16, 10, 10]]
    fuse = build(iou_threshold=0.4)
    # IoUs: 0.43 of the first two; 0.25 of the first and the third, but 0.45 with [2.2 … 12.2].
    found = fuse([prediction([box], [score]) for box, score in zip(boxes, (0.9, 0.89, 0.5))])
    assert len(found) == 1
    x1 = (4 * 0.89 + 6 * 0.5) / (0.9 + 0.89 + 0.5)
    torch.testing.assert_close(found.bboxes[0, 0], torch.tensor(x1))


def test_default_thresholds():
    # Shifted by a fifth of the edge along each axis: IoU 0.47 in 2D and 0.34 in 3D.
    for box, slices, expected in (([0, 0, 10, 10], [0], 2), ([0, 0, 0, 10, 10, 10], None, 1)):
        shifted = [value + 2 for value in box]
        parts = [prediction([one], [0.5], slices) for one in (box, shifted)]
        assert len(build()(parts)) == expected
        assert len(build(iou_threshold=0.4)(parts)) == (1 if slices else 2)


def test_lesions_that_overlap_in_every_prediction_stay_apart():
    one, other = [0, 0, 0, 10, 10, 10], [4, 0, 0, 14, 10, 10]
    both = prediction([one, other], [0.9, 0.8])
    found = build()([both, both])
    assert found.bboxes.tolist() == [one, other]
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.8]))


def test_slices_and_classes_are_fused_separately():
    box = [0, 0, 10, 10]
    first = prediction([box, box, box], [0.9, 0.5, 0.4], [7, 2, 2], [0, 0, 1])
    second = prediction([box], [0.7], [2], [0])
    found = build()([first, second])
    assert found.slice_inds.tolist() == [2, 2, 7]
    assert found.labels.tolist() == [0, 1, 0]
    torch.testing.assert_close(found.scores, torch.tensor([0.6, 0.2, 0.45]))


def test_low_fused_scores_are_dropped():
    parts = [prediction([[0, 0, 0, 4, 4, 4]], [0.4]), *[prediction([], [])] * 3]
    assert build(score_thr=0.1)(parts).scores.tolist() == pytest.approx([0.1])
    assert len(build(score_thr=0.11)(parts)) == 0


def test_no_boxes():
    for slices, columns in ((None, 6), ([], 4)):
        found = build()([prediction([], [], slices)] * 2)
        assert found.bboxes.shape == (0, columns)
        assert len(found.scores) == len(found.labels) == 0
        assert ("slice_inds" in found) == (slices is not None)


def plain_fusion(boxes, scores, predictions, num_predictions, iou_thr):
    """Fuse the boxes of one group one after the other."""
    clusters = []

    def iou(one, other):
        low, high = np.maximum(one[:3], other[:3]), np.minimum(one[3:], other[3:])
        inter = np.prod(np.clip(high - low, 0, None))
        return inter / (np.prod(one[3:] - one[:3]) + np.prod(other[3:] - other[:3]) - inter)

    for i in np.argsort(-scores, kind="stable"):
        best, chosen = iou_thr, None
        for members in clusters:
            mean = np.average(boxes[members], axis=0, weights=scores[members])
            value = iou(boxes[i], mean)
            if predictions[i] not in predictions[members] and value > best:
                best, chosen = value, members
        if chosen is None:
            clusters.append([i])
        else:
            chosen.append(i)
    return sorted(
        (scores[m].sum() / num_predictions, *np.average(boxes[m], axis=0, weights=scores[m]))
        for m in clusters
    )


def test_many_boxes_as_one_by_one():
    rng = np.random.default_rng(0)
    low = rng.uniform(0, 20, (300, 3))
    boxes, scores = np.hstack((low, low + rng.uniform(8, 20, (300, 3)))), rng.uniform(0.1, 1, 300)
    predictions, groups = rng.integers(0, 5, 300), rng.integers(0, 3, 300)
    fused, fused_scores, fused_groups = fuse_boxes(boxes, scores, predictions, groups, 5, 0.3)
    assert len(fused) < 200
    for group in range(3):
        own = groups == group
        expected = plain_fusion(boxes[own], scores[own], predictions[own], 5, 0.3)
        rows = np.column_stack((fused_scores, fused))[fused_groups == group]
        np.testing.assert_allclose(sorted(map(tuple, rows)), expected, rtol=1e-9)


@pytest.mark.parametrize("settings", [dict(iou_threshold=50), dict(score_thr=None)])
def test_invalid_thresholds(settings):
    with pytest.raises(InputError, match="WeightedBoxFusion: .* expected a number from 0 to 1"):
        build(**settings)
