import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.structures import InstanceData

from mmdet_lesion import InputError
from mmdet_lesion.models.semi_supervised import (
    append_pseudo_instances,
    mine_lesions,
    project_bboxes,
)
from mmdet_lesion.models.task_modules.hard_negatives import split_hard_negatives

# The student sees the image at twice the size, shifted by 10 pixels to the left.
MATRIX = np.array([[2.0, 0, -10], [0, 2, 0], [0, 0, 1]], dtype=np.float32)


def student_sample(gt=((10.0, 20, 20, 30),), matrix=MATRIX, img_shape=(60, 50)):
    sample = DetDataSample(metainfo=dict(img_shape=img_shape))
    if matrix is not None:
        sample.set_metainfo(dict(homography_matrix=matrix))
    boxes = torch.tensor(gt, dtype=torch.float32).reshape(-1, 4)
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(boxes), labels=torch.zeros(len(boxes), dtype=torch.long)
    )
    return sample


def test_boxes_are_projected_clipped_and_dropped_outside_of_the_image():
    boxes = torch.tensor([[10.0, 10, 15, 15], [0, 0, 8, 8], [0, 0, 5.25, 8]])
    projected, inside = project_bboxes(boxes, (30, 30), student_sample())
    assert projected.tolist() == [[10, 20, 20, 30], [0, 0, 6, 16]]
    assert inside.tolist() == [0, 1]


def test_views_of_different_sizes_need_a_homography_matrix():
    boxes = torch.tensor([[10.0, 10, 15, 15]])
    with pytest.raises(InputError, match=r"\(60, 50\).*\(30, 30\).*no 'homography_matrix'"):
        project_bboxes(boxes, (30, 30), student_sample(matrix=None))
    projected, _ = project_bboxes(boxes, (60, 50), student_sample(matrix=None))
    assert torch.equal(projected, boxes)


def test_mined_lesions_are_confident_and_not_annotated():
    predictions = InstanceData(
        # The annotated lesion, a new one, and an uncertain one, in the teacher's view.
        bboxes=torch.tensor([[10.0, 10, 15, 15], [20, 2, 28, 10], [6, 20, 12, 28]]),
        scores=torch.tensor([0.99, 0.95, 0.5]),
        labels=torch.zeros(3, dtype=torch.long),
    )
    mined = mine_lesions(predictions, (30, 30), student_sample(), iou_thr=0.7, score_thr=0.9)
    assert mined.bboxes.tolist() == [[20, 2, 28, 10]]
    assert mined.projected.tolist() == [[30, 4, 46, 20]]
    assert mined.scores.tolist() == pytest.approx([0.95])
    assert mined.candidate_scores.tolist() == pytest.approx([0.95, 0.5])
    assert mined.gt_iou.tolist() == [0]


def test_pseudo_instances_are_appended():
    sample = student_sample()
    boxes, labels = torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([0])
    for field, expected in (("gt_instances", 2), ("ignored_instances", 1)):
        append_pseudo_instances(sample, boxes, labels, field)
        instances = sample.get(field)
        assert isinstance(instances.bboxes, HorizontalBoxes)
        assert len(instances) == len(instances.labels) == expected
        assert instances.bboxes.tensor[-1].tolist() == [1, 2, 3, 4]
    sample.gt_instances.masks = torch.zeros(2, 4, 4)
    with pytest.raises(InputError, match="gt_instances holds masks beside bboxes and labels"):
        append_pseudo_instances(sample, boxes, labels)


def test_predictions_on_hard_negatives_are_not_mined():
    # In the student's view: [30, 4, 46, 20], and with IoUs of 0.5 and 1 with hard negatives.
    predictions = InstanceData(
        bboxes=torch.tensor([[20.0, 2, 28, 10], [10, 2, 18, 10], [6, 20, 12, 28]]),
        scores=torch.tensor([0.99, 0.95, 0.93]),
        labels=torch.zeros(3, dtype=torch.long),
    )

    def mine(sample, score_thr=0.9):
        return mine_lesions(predictions, (30, 30), sample, iou_thr=0.7, score_thr=score_thr)

    sample = student_sample()
    assert len(mine(sample).bboxes) == 3 and mine(sample).hard_negatives is None
    bboxes = torch.tensor([[10.0, 4, 18, 20], [2, 40, 14, 56]])
    sample.ignored_instances = InstanceData(
        bboxes=HorizontalBoxes(bboxes), labels=torch.tensor([-1, -1])
    )
    mined = mine(sample)
    assert mined.bboxes.tolist() == predictions.bboxes[:2].tolist()
    assert mined.candidate_scores.tolist() == pytest.approx([0.99, 0.95])
    # They are no ground truth, of which mined boxes could be repeats.
    assert mined.gt_iou.tolist() == [0, 0]
    assert (mined.hard_negatives, mine(sample, 0.94).hard_negatives) == (1, 0)
    # An ignored region does not prevent mining.
    sample.ignored_instances.labels = torch.tensor([-1, 0])
    assert len(mine(sample).bboxes) == 3


def test_mined_boxes_of_the_policy_ignore_join_hard_negatives():
    sample = student_sample()
    hard = torch.tensor([[10.0, 4, 18, 20]])
    sample.ignored_instances = InstanceData(bboxes=HorizontalBoxes(hard), labels=torch.tensor([-1]))
    append_pseudo_instances(
        sample, torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([0]), "ignored_instances"
    )
    regions, still_hard = split_hard_negatives(sample.ignored_instances)
    assert (regions.tolist(), still_hard.tolist()) == ([[1, 2, 3, 4]], hard.tolist())
