import numpy as np
import pytest
import torch

from mmdet_lesion.structures.boxes import (
    batched_nms3d,
    box_containment3d,
    box_iou3d,
    box_volume3d,
    nms3d,
)


def random_boxes(n: int, seed: int, extent: float = 20.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    low = torch.rand(n, 3, generator=generator) * extent
    return torch.cat((low, low + 2 + torch.rand(n, 3, generator=generator) * 10), dim=1)


def plain_overlaps(a, b) -> tuple[float, float]:
    """Return IoU and containment."""
    edges = [min(a[k + 3], b[k + 3]) - max(a[k], b[k]) for k in range(3)]
    inter = np.prod([max(0.0, edge) for edge in edges])
    volumes = [np.prod([box[k + 3] - box[k] for k in range(3)]) for box in (a, b)]
    return float(inter / (sum(volumes) - inter)), float(inter / min(volumes))


def plain_nms(boxes, scores, groups, iou_thr, containment_thr=1.0) -> list[int]:
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: -scores[i]):
        rivals = [plain_overlaps(boxes[i], boxes[j]) for j in kept if groups[i] == groups[j]]
        if all(iou <= iou_thr and inside <= containment_thr for iou, inside in rivals):
            kept.append(i)
    return kept


def test_overlaps_have_expected_values():
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 2], [1, 1, 1, 3, 3, 3]])
    others = torch.tensor(
        [[0.0, 0, 0, 2, 2, 2], [0, 0, 0, 4, 2, 1], [2, 0, 0, 4, 2, 2], [1, 1, 1, 1, 5, 5]]
    )
    # Boxes of 8 voxels that share 1 voxel: 1 / 15; that share 4: 4 / 12; that touch: 0.
    expected = torch.tensor([[1.0, 4 / 12, 0.0, 0.0], [1 / 15, 0.0, 1 / 15, 0.0]])
    torch.testing.assert_close(box_iou3d(boxes, others), expected)
    assert box_volume3d(others).tolist() == [8, 8, 8, 0]


def test_overlaps_of_empty_boxes_are_zero_or_empty():
    flat = torch.tensor([[1.0, 1, 1, 1, 2, 2]])
    assert box_iou3d(flat, flat).tolist() == [[0.0]]
    assert box_iou3d(flat[:0], flat).shape == (0, 1)
    assert box_iou3d(flat, flat[:0]).shape == (1, 0)


def test_containment_has_expected_values():
    boxes = torch.tensor([[0.0, 0, 0, 2, 2, 2], [0, 0, 0, 1, 1, 8], [1, 1, 1, 1, 2, 2]])
    others = torch.tensor([[0.0, 0, 0, 10, 10, 10], [1, 0, 0, 2, 2, 8], [2, 2, 2, 4, 4, 4]])
    # All of 8 voxels, or 4 of 8 voxels; neighbors that touch, and a flat box, contain nothing.
    expected = torch.tensor([[1.0, 0.5, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(box_containment3d(boxes, others), expected)
    torch.testing.assert_close(box_containment3d(others, boxes), expected.T)


def test_half_precision_boxes_do_not_overflow():
    box = torch.tensor([[0, 0, 0, 300, 300, 300]], dtype=torch.float16)
    assert box_iou3d(box, box).tolist() == [[1.0]]


@pytest.mark.parametrize("boxes", [torch.zeros(3, 4), torch.zeros(6)])
def test_boxes_without_six_columns_are_rejected(boxes):
    with pytest.raises(ValueError, match=r"expected \(N, 6\)"):
        box_iou3d(boxes, torch.zeros(1, 6))


def test_suppressed_boxes_do_not_suppress_others():
    # The second box overlaps both others; the third overlaps only the suppressed second box.
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 4], [1, 0, 0, 5, 4, 4], [3, 0, 0, 7, 4, 4]])
    assert nms3d(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.2).tolist() == [0, 2]
    # An IoU equal to the threshold (12 / 20) does not suppress.
    assert nms3d(boxes[:2], torch.tensor([0.9, 0.8]), 0.6).tolist() == [0, 1]


def test_small_boxes_within_large_ones_are_suppressed_by_containment():
    # 8 of the 10 voxels of the second box are in the first one; the IoU is 8 / 1002.
    boxes = torch.tensor([[0.0, 0, 0, 10, 10, 10], [8, 0, 0, 10.5, 2, 2]])
    for scores in (torch.tensor([0.9, 0.8]), torch.tensor([0.8, 0.9])):
        best = [int(scores.argmax())]
        assert len(nms3d(boxes, scores, 0.3)) == 2
        assert nms3d(boxes, scores, 0.3, 0.7).tolist() == best
        # A fraction equal to the threshold does not suppress.
        assert len(nms3d(boxes, scores, 0.3, 0.8)) == 2


def test_equal_scores_keep_the_earlier_box():
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 4]] * 3)
    assert nms3d(boxes, torch.full((3,), 0.5), 0.5).tolist() == [0]


@pytest.mark.parametrize("thresholds", [(0.05,), (0.3,), (0.3, 0.5)])
def test_nms_equals_a_plain_loop(thresholds, monkeypatch):
    # Small blocks, so that 300 boxes span many of them.
    monkeypatch.setattr("mmdet_lesion.structures.boxes._BLOCK", 16)
    monkeypatch.setattr("mmdet_lesion.structures.boxes._MAX_OVERLAPS", {"cpu": 200})
    boxes = random_boxes(300, seed=1).double()
    scores = torch.rand(300, generator=torch.Generator().manual_seed(2))
    groups = torch.arange(300) % 3
    plain = plain_nms(boxes.tolist(), scores.tolist(), [0] * 300, *thresholds)
    assert nms3d(boxes, scores, *thresholds).tolist() == plain
    assert len(plain) < 250
    grouped = plain_nms(boxes.tolist(), scores.tolist(), groups.tolist(), *thresholds)
    assert batched_nms3d(boxes, scores, groups, *thresholds).tolist() == grouped
    assert len(grouped) > len(plain)


def test_nms_of_no_boxes():
    kept = nms3d(torch.zeros(0, 6), torch.zeros(0), 0.5)
    assert kept.shape == (0,)
    assert kept.dtype == torch.int64


def test_numbers_of_boxes_and_scores_must_agree():
    with pytest.raises(ValueError, match="expected one of each per box"):
        nms3d(torch.zeros(2, 6), torch.zeros(3), 0.5)
    with pytest.raises(ValueError, match="expected one of each per box"):
        batched_nms3d(torch.zeros(2, 6), torch.zeros(2), torch.zeros(3), 0.5)


def test_all_devices_keep_the_same_boxes(device):
    boxes = random_boxes(3000, seed=3, extent=60.0)
    scores = torch.rand(3000, generator=torch.Generator().manual_seed(4))
    groups = torch.arange(3000) % 5
    there = [x.to(device) for x in (boxes, scores, groups)]
    kept = nms3d(*there[:2], 0.2)
    assert kept.device.type == device
    assert kept.tolist() == nms3d(boxes, scores, 0.2).tolist()
    grouped = batched_nms3d(*there, 0.2).tolist()
    assert grouped == batched_nms3d(boxes, scores, groups, 0.2).tolist()
    assert len(grouped) > len(kept)
    overlaps = box_iou3d(there[0][:200], there[0][200:400]).cpu()
    torch.testing.assert_close(overlaps, box_iou3d(boxes[:200], boxes[200:400]))
