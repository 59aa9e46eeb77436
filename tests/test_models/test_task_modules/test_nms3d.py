import numpy as np
import pytest
import torch
from mmdet.registry import TASK_UTILS

from mmdet_lesion import InputError
from mmdet_lesion.apis.detector import DEFAULT_NMS
from mmdet_lesion.io.boxes3d import read_boxes3d_truth


def build(**settings):
    return TASK_UTILS.build(dict(type="nms3d", **settings))


def test_classes_do_not_suppress_each_other():
    boxes = torch.tensor([[0.0, 0, 0, 4, 4, 4], [0, 0, 0, 4, 4, 3], [1, 1, 1, 2, 2, 2]])
    scores = torch.tensor([0.5, 0.6, 0.4])
    nms = build(iou_threshold=0.3, containment_threshold=0.7)
    assert nms(boxes, scores).tolist() == [1]
    assert nms(boxes, scores, torch.tensor([0, 0, 1])).tolist() == [1, 2]
    assert build(iou_threshold=0.3)(boxes, scores).tolist() == [1, 2]


def test_voxels_and_millimeters_give_the_same_result():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(200, 3, generator=generator, dtype=torch.float64) * 30
    edges = 1 + torch.rand(200, 3, generator=generator, dtype=torch.float64) * 15
    boxes, scores = torch.cat((low, low + edges), dim=1), torch.rand(200, generator=generator)
    nms = TASK_UTILS.build(DEFAULT_NMS)
    kept = nms(boxes, scores).tolist()
    spacing = torch.tensor([0.7, 0.7, 2.5] * 2, dtype=torch.float64)
    assert nms(boxes * spacing, scores).tolist() == kept
    assert 20 < len(kept) < 180


@pytest.mark.parametrize(
    "settings",
    [
        dict(iou_threshold=-0.1),
        dict(iou_threshold=None),
        dict(iou_threshold=float("nan")),
        dict(iou_threshold=0.3, containment_threshold=70),
        dict(iou_threshold=0.3, containment_threshold="0.7"),
    ],
)
def test_invalid_thresholds(settings):
    with pytest.raises(InputError, match="nms3d: .*; expected a number from 0 to 1"):
        build(**settings)


def test_default_thresholds_keep_annotated_lesions(lesion_data):
    """Distinct lesions of DeepLesion's manual 1K set rarely exceed the thresholds."""
    path = lesion_data / "deeplesion/DeepLesion_manual_1K_test_release.pkl"
    nms, lesions, kept = TASK_UTILS.build(DEFAULT_NMS), 0, 0
    for split in ("val", "test"):
        for boxes in read_boxes3d_truth(path, split).values():
            # Published boxes have inclusive ends.
            half_open = torch.from_numpy(boxes + np.array([0, 0, 0, 1, 1, 1]))
            lesions += len(boxes)
            kept += len(nms(half_open, torch.zeros(len(boxes))))
    assert lesions == 5447
    assert kept >= lesions - 62
