import math

import pytest
import torch
from mmdet.registry import TASK_UTILS

import mmdet_lesion.models  # noqa: F401


def coder(**kwargs):
    return TASK_UTILS.build(dict(type="DeltaXYZWHDBBoxCoder", **kwargs))


ANCHOR = torch.tensor([[8.0, 8, 8, 16, 16, 16]])


def test_encode():
    box = torch.tensor([[10.0, 8, 4, 18, 24, 8]])
    # Center (14, 16, 6) relative to (12, 12, 12), edges (8, 16, 4) relative to 8.
    expected = torch.tensor([[0.25, 0.5, -0.75, 0.0, math.log(2), -math.log(2)]])
    torch.testing.assert_close(coder().encode(ANCHOR, box), expected)
    torch.testing.assert_close(coder().decode(ANCHOR, expected), box)


def test_means_and_standard_deviations():
    means, stds = [0.1, 0, 0, 0, 0, 0.2], [0.5, 1, 1, 1, 1, 0.1]
    box = torch.tensor([[10.0, 8, 4, 18, 24, 8]])
    plain, scaled = coder().encode(ANCHOR, box), coder(target_means=means, target_stds=stds)
    expected = (plain - torch.tensor(means)) / torch.tensor(stds)
    torch.testing.assert_close(scaled.encode(ANCHOR, box), expected)
    torch.testing.assert_close(scaled.decode(ANCHOR, expected), box)


def test_decode_inverts_encode():
    generator = torch.Generator().manual_seed(0)
    low = torch.rand(50, 3, generator=generator) * 100
    boxes = torch.cat((low, low + 1 + torch.rand(50, 3, generator=generator) * 40), dim=1)
    anchors = boxes[torch.randperm(50, generator=generator)]
    back = coder().decode(anchors, coder().encode(anchors, boxes))
    torch.testing.assert_close(back, boxes, rtol=1e-4, atol=1e-3)


def test_decode_clamps_large_offsets():
    boxes = coder().decode(ANCHOR, torch.tensor([[0.0, 0, 0, 500, -500, 0]]))
    assert boxes.isfinite().all()
    torch.testing.assert_close(boxes[0, 3] - boxes[0, 0], torch.tensor(8 * 1000 / 16))


def test_wrong_number_of_means():
    with pytest.raises(ValueError, match="expected 6"):
        coder(target_means=[0.0] * 4)
