"""Tests that ``sparse_roi_align`` equals mmcv's RoIAlign."""

import pytest
import torch
from mmcv.ops import roi_align

from mmdet_lesion.models.layers import sparse_roi_align


def random_rois(num, images, side, seed=0):
    """Centers up to a tenth outside of the image, sides from 2 pixels to the whole image."""
    generator = torch.Generator().manual_seed(seed)
    center = (1.2 * torch.rand(num, 2, generator=generator) - 0.1) * side
    half = torch.exp(torch.rand(num, 2, generator=generator) * 4) / 54 * side / 2 + 1
    image = torch.randint(0, images, (num, 1), generator=generator).float()
    return torch.cat([image, center - half, center + half], 1)


@pytest.mark.parametrize("output_size", [(7, 7), (2, 5)])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_random_rois_equal_mmcv(output_size, scale):
    maps = torch.randn(3, 5, 21, 30, generator=torch.Generator().manual_seed(1))
    rois = random_rois(200, 3, 25 / scale)
    expected = roi_align(maps, rois, output_size, scale, 0, "avg", True)
    found = sparse_roi_align(maps, rois, output_size, scale)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "corners",
    [
        (-8, -8, -4, -4),  # outside, further than a pixel
        (-1.5, -1.5, 0.5, 0.5),  # around the corner, where pixels repeat
        (28.6, 19.8, 31.4, 22.2),  # across the last pixel
        (3, 3, 3, 3),  # empty
        (-40, -40, 80, 80),  # far beyond the image
        (0.5, 0.5, 7.5, 7.5),  # one pixel a bin
    ],
)
def test_rois_at_the_border_equal_mmcv(corners):
    maps = torch.randn(1, 3, 21, 30, generator=torch.Generator().manual_seed(1))
    rois = torch.tensor([[0, *corners]], dtype=torch.float32)
    expected = roi_align(maps, rois, (7, 7), 1.0, 0, "avg", True)
    torch.testing.assert_close(
        sparse_roi_align(maps, rois, (7, 7), 1.0), expected, atol=2e-5, rtol=1e-5
    )


def test_empty_rois():
    assert sparse_roi_align(torch.rand(1, 3, 4, 4), torch.zeros(0, 5), (7, 7), 1.0).shape == (
        *(0, 3, 7, 7),
    )


def test_memory_format_and_chunks_do_not_change_the_result(monkeypatch):
    maps = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    rois = random_rois(50, 2, 16)
    expected = sparse_roi_align(maps, rois, (7, 7), 1.0)
    monkeypatch.setitem(sparse_roi_align.__globals__, "MAX_WEIGHTS", 20_000)
    last = maps.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(sparse_roi_align(last, rois, (7, 7), 1.0), expected)
