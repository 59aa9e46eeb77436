import pytest
import torch
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

PRIORS = torch.tensor([[0.0, 0, 10, 10], [2, 2, 8, 8], [50, 50, 60, 60]])
IGNORED = InstanceData(bboxes=torch.tensor([[0.0, 0, 10, 10]]), labels=torch.tensor([0]))


def assign(kind, gt, ignored, thr=0.5):
    assigner = TASK_UTILS.build(
        dict(type=kind, pos_iou_thr=0.7, neg_iou_thr=0.3, ignore_iof_thr=thr)
    )
    gt = torch.tensor(gt, dtype=torch.float32).reshape(-1, 4)
    instances = InstanceData(bboxes=gt, labels=torch.zeros(len(gt), dtype=torch.long))
    return assigner.assign(InstanceData(priors=PRIORS), instances, ignored).gt_inds.tolist()


def test_ignores_where_there_is_no_ground_truth():
    assert assign("IgnoreAwareMaxIoUAssigner", [], IGNORED) == [-1, -1, 0]
    # mmdet's own takes them as negatives; when it no longer does, ours can go.
    assert assign("MaxIoUAssigner", [], IGNORED) == [0, 0, 0]


@pytest.mark.parametrize("ignored", [None, IGNORED[:0]])
def test_nothing_to_ignore(ignored):
    assert assign("IgnoreAwareMaxIoUAssigner", [], ignored) == [0, 0, 0]


def test_switched_off():
    assert assign("IgnoreAwareMaxIoUAssigner", [], IGNORED, thr=-1) == [0, 0, 0]


def test_with_ground_truth_as_mmdets():
    gt = [[50, 50, 60, 60]]
    ours = assign("IgnoreAwareMaxIoUAssigner", gt, IGNORED)
    assert ours == assign("MaxIoUAssigner", gt, IGNORED) == [-1, -1, 1]
