"""Reduction of a slice stack to one feature map."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class DepthReduction(BaseModule):
    """(D x 1 x 1) convolution that reduces a slice stack to one slice.

    It is initialized as the identity of the middle slice, which preserves pretrained features.

    Args:
        channels: Channels of a slice, and of the result.
        num_slices: Slices of a stack (D); odd.

    Source: A3D and AlignShift (Yang et al., 2021 and 2020), which initialize it randomly.
    """

    def __init__(self, channels: int, num_slices: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_slices = num_slices
        # A 1x1 convolution over channels and slices, whose input is a view.
        self.conv = nn.Conv2d(channels * num_slices, channels, 1, bias=False)
        self.reset_to_middle()

    def init_weights(self) -> None:
        """Keep the identity, whatever initialization the surrounding module applies."""
        self.reset_to_middle()

    @torch.no_grad()
    def reset_to_middle(self) -> None:
        """Set the weights so that the middle slice is returned unchanged."""
        weight = self.conv.weight.view(self.channels, self.channels, self.num_slices)
        weight.zero_()
        nn.init.eye_(weight[:, :, self.num_slices // 2])

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (N, channels, D * H, W) to (N, channels, H, W)."""
        return self.conv(x.unflatten(2, (self.num_slices, -1)).flatten(1, 2))
