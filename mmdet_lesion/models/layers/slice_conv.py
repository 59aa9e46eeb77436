"""2D convolution of every slice of a stack, after a mixture of the slices."""

from typing import Optional

import torch.nn.functional as F
from torch import Tensor, nn


class SliceConv(nn.Conv2d):
    """A 2D convolution of each slice, in front of which subclasses mix the slices.

    The slices of a stack lie under each other in one tall image, (N, C, D * H, W). So pointwise
    layers (norms, ReLU, 1x1 convolutions) and the mixing over D are views of one memory layout,
    and nothing is copied between them.

    Args:
        in_channels: channels of a slice.
        out_channels: channels of a slice of the result.
        kernel_size: of the 2D kernel.
        num_slices: D.
        padding: of the 2D convolution.
        bias: add a bias.
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
        """Mix slices, (N, C, D, H, W) to the same shape."""
        return slices

    def forward(self, x: Tensor, thickness: Optional[Tensor] = None) -> Tensor:
        """Mix and convolve.

        Args:
            x: (N, in_channels, D * H, W) stacks of slices.
            thickness: (N,) mm between the slices of each stack, for the mixing that depends on
                it.

        Returns:
            (N, out_channels, D * H', W').
        """
        slices = self.mix(x.unflatten(2, (self.num_slices, -1)), thickness)
        if self.kernel_size == (1, 1) and self.padding == (0, 0):
            return F.conv2d(slices.flatten(2, 3), self.weight, self.bias)
        # 1xkxk: rows of different slices do not meet.
        result = F.conv3d(slices, self.weight.unsqueeze(2), self.bias, padding=(0, *self.padding))
        return result.flatten(2, 3)
