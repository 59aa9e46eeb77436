"""Base class of 2D convolutions that mix the slices of a stack."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn


class SliceConv(nn.Conv2d):
    """2D convolution of each slice, after subclasses have mixed the slices of the stack.

    The slices of a stack are stored below each other, (N, C, D * H, W), so that both pointwise
    layers (norms, ReLU, 1x1 convolutions) and the mixing over D work on views without a copy.

    Args:
        in_channels: Input channels of a slice.
        out_channels: Output channels of a slice.
        kernel_size: Size of the 2D kernel.
        num_slices: Slices of a stack (D).
        padding: Padding of the 2D convolution.
        bias: Whether to add a bias.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        num_slices: int,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, padding=padding, bias=bias)
        self.num_slices = num_slices

    def mix(self, slices: Tensor, thickness: Optional[Tensor]) -> Tensor:
        """Mix features across slices; the shape (N, C, D, H, W) is unchanged."""
        return slices

    def forward(self, x: Tensor, thickness: Optional[Tensor] = None) -> Tensor:
        """Mix the slices and convolve each of them.

        Args:
            x: Slice stacks (N, in_channels, D * H, W).
            thickness: Distance between the slices of each stack in mm, shape (N,), if the mixing
                depends on it.

        Returns:
            Slice stacks (N, out_channels, D * H', W').
        """
        slices = self.mix(x.unflatten(2, (self.num_slices, -1)), thickness)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            return F.conv2d(slices.flatten(2, 3), self.weight, self.bias)
        # A 1xkxk kernel keeps the slices apart.
        result = F.conv3d(slices, self.weight.unsqueeze(2), self.bias, padding=(0, *self.padding))
        return result.flatten(2, 3)
