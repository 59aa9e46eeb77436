import pytest
import torch

from mmdet_lesion.engine import gt_nms

GT = torch.tensor([[0.0, 0, 10, 10]])


def boxes(*rows):
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_overlap_with_ground_truth_is_dropped():
    # IoU with GT: 1.0, 0.8 (10×8 of 10×10), 0.5, 0.
    pred = boxes([0, 0, 10, 10], [0, 0, 10, 8], [0, 0, 10, 5], [50, 50, 60, 60])
    scores = torch.tensor([0.99, 0.98, 0.95, 0.97])
    assert gt_nms(pred, scores, GT, 0.7, 0.9).tolist() == [3, 2]
    assert gt_nms(pred, scores, GT, 0.85, 0.9).tolist() == [1, 3, 2]


def test_iou_equal_to_the_threshold_is_kept():
    pred = boxes([0, 0, 10, 5])
    assert gt_nms(pred, torch.tensor([0.95]), GT, 0.5, 0.9).tolist() == [0]
    assert gt_nms(pred, torch.tensor([0.95]), GT, 0.49, 0.9).tolist() == []


def test_predictions_suppress_each_other_by_score():
    pred = boxes([50, 50, 60, 60], [50, 50, 60, 61], [80, 80, 90, 90])
    scores = torch.tensor([0.91, 0.95, 0.92])
    assert gt_nms(pred, scores, GT, 0.7, 0.9).tolist() == [1, 2]


def test_dropped_predictions_suppress_nothing():
    # The first equals a ground-truth box; the IoU of the second with both is 0.6.
    pred = boxes([0, 0, 10, 10], [0, 0, 10, 6])
    assert gt_nms(pred, torch.tensor([0.99, 0.95]), GT, 0.7, 0.9).tolist() == [1]


def test_ground_truth_boxes_do_not_suppress_each_other():
    # The ground-truth boxes have an IoU of 0.8; the prediction equals the one that NMS would drop.
    gt = boxes([0, 0, 10, 10], [0, 0, 10, 8])
    pred = boxes([0, 0, 10, 6])
    assert gt_nms(pred, torch.tensor([0.95]), gt, 0.7, 0.9).tolist() == []


def test_score_equal_to_the_threshold_is_kept():
    pred = boxes([50, 50, 60, 60], [70, 70, 80, 80])
    scores = torch.tensor([0.9, 0.8999])
    assert gt_nms(pred, scores, GT, 0.7, 0.9).tolist() == [0]


@pytest.mark.parametrize("gt", [GT, torch.zeros(0, 4)])
def test_empty_inputs(gt):
    assert gt_nms(torch.zeros(0, 4), torch.zeros(0), gt, 0.7, 0.9).tolist() == []
    kept = gt_nms(boxes([50, 50, 60, 60]), torch.tensor([0.95]), gt, 0.7, 0.9)
    assert kept.tolist() == [0]
    assert kept.dtype == torch.int64


def test_equals_a_reference_loop():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        corner = torch.rand(40, 2, generator=generator) * 40
        pred = torch.cat([corner, corner + 8 + torch.rand(40, 2, generator=generator) * 8], 1)
        scores = torch.rand(40, generator=generator)
        gt = pred[:3] + 1
        expected = []
        for index in scores.argsort(descending=True).tolist():
            blockers = [*gt, *pred[expected]]
            if scores[index] >= 0.3 and all(iou(pred[index], b) <= 0.4 for b in blockers):
                expected.append(index)
        assert gt_nms(pred, scores, gt, 0.4, 0.3).tolist() == expected


def iou(a, b):
    w = (torch.minimum(a[2], b[2]) - torch.maximum(a[0], b[0])).clamp(min=0)
    h = (torch.minimum(a[3], b[3]) - torch.maximum(a[1], b[1])).clamp(min=0)
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])
    return w * h / (area - w * h)


def test_result_is_the_same_on_every_device(device):
    generator = torch.Generator().manual_seed(1)
    corner = torch.rand(200, 2, generator=generator) * 60
    pred = torch.cat([corner, corner + 8 + torch.rand(200, 2, generator=generator) * 8], 1)
    scores, gt = torch.rand(200, generator=generator), pred[:5] + 1
    kept = gt_nms(pred.to(device), scores.to(device), gt.to(device), 0.4, 0.3)
    assert kept.device.type == device
    assert kept.tolist() == gt_nms(pred, scores, gt, 0.4, 0.3).tolist()
    assert 5 < len(kept) < 150
