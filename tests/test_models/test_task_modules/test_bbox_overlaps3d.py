import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

import mmdet_lesion.models  # noqa: F401


def assigner():
    return TASK_UTILS.build(
        dict(
            type="MaxIoUAssigner",
            pos_iou_thr=0.3,
            neg_iou_thr=0.1,
            min_pos_iou=0.01,
            iou_calculator=dict(type="BboxOverlaps3D"),
        )
    )


def assign(priors, boxes):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 6)
    truth = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    priors = torch.tensor(priors, dtype=torch.float32)
    return assigner().assign(InstanceData(priors=priors), truth).gt_inds.tolist()


CUBE = [0.0, 0, 0, 4, 4, 4]


def test_max_iou_assigner_in_3d():
    priors = [
        CUBE,  # IoU 1
        [2.0, 0, 0, 6, 4, 4],  # 32 / 96
        [2.0, 2, 0, 6, 6, 4],  # 16 / 112 = 0.14, between the thresholds
        [2.0, 2, 2, 6, 6, 6],  # 8 / 120 = 0.07
    ]
    assert assign(priors, [CUBE]) == [1, 1, -1, 0]


def test_every_box_has_its_best_anchor():
    # A box of 1 voxel in an anchor of 64 voxels has an IoU of only 0.016.
    assert assign([CUBE, [8.0, 8, 8, 12, 12, 12]], [[1, 1, 1, 2, 2, 2]]) == [1, 0]


def test_box_outside_of_all_anchors_has_none():
    assert assign([CUBE], [[50, 50, 50, 60, 60, 60]]) == [0]


def test_without_boxes_all_anchors_are_negative():
    assert assign([CUBE, CUBE], []) == [0, 0]


def test_unsupported_mode():
    overlaps = TASK_UTILS.build(dict(type="BboxOverlaps3D"))
    with pytest.raises(ValueError, match="expected 'iou'"):
        overlaps(torch.zeros(1, 6), torch.zeros(1, 6), mode="iof")
