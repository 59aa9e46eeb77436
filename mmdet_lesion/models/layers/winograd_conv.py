"""3x3 convolution with fewer multiplications, at chosen places of a feature map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

__all__ = ["TILE", "WinogradConv"]

#: Edge of the square tiles that are computed.
TILE = 4

# Transforms of the input, the weights and the output of F(4x4, 3x3) along one axis.
_INPUT = [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
]
_WEIGHTS = [
    [1 / 4, 0, 0],
    [-1 / 6, -1 / 6, -1 / 6],
    [-1 / 6, 1 / 6, -1 / 6],
    [1 / 24, 1 / 12, 1 / 6],
    [1 / 24, -1 / 12, 1 / 6],
    [0, 0, 1],
]
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


class WinogradConv:
    """A 3x3 convolution of stride 1 and padding 1 that is computed in tiles of 4 x 4 pixels.

    For many channels it needs a quarter of the multiplications, and tiles outside of a mask are
    not computed. It is meant for inference on CPUs, whose libraries do not have it. In float32 its
    rounding errors are about three times those of a direct convolution.

    Args:
        conv: The convolution. Its weights are transformed here; later changes have no effect.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2016), F(4x4, 3x3).
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        weights = torch.tensor(_WEIGHTS, dtype=torch.float64, device=conv.weight.device)
        spread = torch.einsum("ai,bj,ocij->abco", weights, weights, conv.weight.double())
        self.weight = spread.flatten(0, 1).to(conv.weight.dtype).contiguous()
        self.bias = conv.bias

    @staticmethod
    def accepts(conv: nn.Module) -> bool:
        """Return whether a module is a convolution that this class computes faster."""
        return (
            type(conv) is nn.Conv2d
            and conv.kernel_size == (3, 3)
            and conv.stride == conv.padding == conv.dilation == (1, 1)
            and conv.padding_mode == "zeros"
            and conv.groups == 1
            and min(conv.in_channels, conv.out_channels) >= 128
            and conv.weight.is_cpu
            and conv.weight.dtype == torch.float32
        )

    def __call__(self, x: Tensor, tiles: Tensor) -> Tensor:
        """Convolve some tiles of feature maps.

        Args:
            x: Feature maps (N, C, H, W).
            tiles: Whether to compute a tile, shape (N, ceil(H / 4), ceil(W / 4)), bool.

        Returns:
            The outputs of the T tiles in row-major order, shape (T, 4, 4, out_channels). Pixels
            beyond the map are not meaningful.
        """
        n, channels, height, width = x.shape
        rows, columns = tiles.shape[1:]
        padded = x.new_zeros(n, TILE * rows + 2, TILE * columns + 2, channels)
        padded[:, 1 : height + 1, 1 : width + 1] = x.permute(0, 2, 3, 1)
        image, row, column, _ = padded.stride()
        patches = padded.as_strided(
            (6, 6, n, rows, columns, channels), (row, column, image, TILE * row, TILE * column, 1)
        )
        # Masking makes one copy of the pixels, overlaps included.
        patches = patches[:, :, tiles].flatten(2).flatten(0, 1)
        products = torch.bmm(
            (_kron(_INPUT, x) @ patches).view(36, -1, channels), self.weight
        ).flatten(1)
        out = (_kron(_OUTPUT, x) @ products).view(TILE, TILE, -1, self.weight.shape[2])
        if self.bias is not None:
            out += self.bias
        return out.permute(2, 0, 1, 3)


def _kron(matrix: Sequence[Sequence[float]], like: Tensor) -> Tensor:
    """Return the transform of both axes of a tile."""
    axis = like.new_tensor(matrix)
    return torch.kron(axis, axis)
