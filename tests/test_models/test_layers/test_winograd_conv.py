"""Tests of the convolution in tiles."""

import pytest
import torch
from torch import nn

from mmdet_lesion.models.layers.winograd_conv import TILE, WinogradConv


def whole(tiles_out, tiles, height, width):
    """Return the outputs of all tiles as maps (N, C, H, W)."""
    n, rows, columns = tiles.shape
    maps = tiles_out.new_zeros(n, rows, columns, *tiles_out.shape[1:])
    maps[tiles] = tiles_out
    maps = maps.permute(0, 5, 1, 3, 2, 4).reshape(n, -1, rows * TILE, columns * TILE)
    return maps[..., :height, :width]


@pytest.mark.parametrize("shape", [(1, 1), (4, 8), (7, 13), (20, 33)])
@pytest.mark.parametrize("bias", [True, False])
@torch.no_grad()
def test_output_equals_the_convolution(shape, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 5, *shape, dtype=torch.float64)
    tiles = torch.ones(2, -(-shape[0] // TILE), -(-shape[1] // TILE), dtype=torch.bool)
    found = whole(WinogradConv(conv)(x, tiles), tiles, *shape)
    torch.testing.assert_close(found, conv(x))


@torch.no_grad()
def test_only_chosen_tiles_are_computed():
    torch.manual_seed(0)
    conv = nn.Conv2d(3, 4, 3, padding=1)
    x = torch.randn(2, 3, 16, 24)
    tiles = torch.rand(2, 4, 6) < 0.4
    out = WinogradConv(conv)(x, tiles)
    assert out.shape == (int(tiles.sum()), TILE, TILE, 4)
    chosen = tiles.repeat_interleave(TILE, 1).repeat_interleave(TILE, 2)[:, None]
    found = whole(out, tiles, 16, 24)
    torch.testing.assert_close(found, torch.where(chosen, conv(x), 0), atol=1e-5, rtol=1e-5)
    assert not len(WinogradConv(conv)(x, torch.zeros_like(tiles)))


@torch.no_grad()
def test_rounding_error_in_float32():
    torch.manual_seed(0)
    conv = nn.Conv2d(512, 16, 3, padding=1)
    x = torch.randn(1, 512, 32, 32)
    tiles = torch.ones(1, 8, 8, dtype=torch.bool)
    found = whole(WinogradConv(conv)(x, tiles), tiles, 32, 32)
    exact = conv.double()(x.double())
    assert (found - exact).abs().max() < 1e-4 * exact.std()


def test_accepts_convolutions_for_which_it_is_faster():
    assert WinogradConv.accepts(nn.Conv2d(512, 512, 3, padding=1))
    for conv in (
        nn.Conv2d(512, 512, 1),
        nn.Conv2d(512, 512, 3),
        nn.Conv2d(512, 512, 3, padding=1, stride=2),
        nn.Conv2d(512, 512, 3, padding=2, dilation=2),
        nn.Conv2d(512, 512, 3, padding=1, groups=2),
        nn.Conv2d(512, 512, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.Conv2d(512, 512, 3, padding=1).double(),
        nn.Conv2d(512, 512, 3, padding=1).to("meta"),
        nn.Sequential(nn.Conv2d(512, 512, 3, padding=1)),
    ):
        assert not WinogradConv.accepts(conv)
