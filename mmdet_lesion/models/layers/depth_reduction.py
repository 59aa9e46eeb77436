"""From a stack of slices to one map."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class DepthReduction(BaseModule):
    """A (D x 1 x 1) convolution that leaves one slice of a stack.

    It starts as a pass-through of the middle slice, which leaves pretrained features as they are.

    Args:
        channels: channels of a slice, and of the result.
        num_slices: D, odd.

    Source: A3D and AlignShift (Yang et al., 2020 and 2021), which start it at random.
    """

    def __init__(self, channels: int, num_slices: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_slices = num_slices
        # The channels of a tall image, with each slice as a channel of its own, are one view.
        self.conv = nn.Conv2d(channels * num_slices, channels, 1, bias=False)
        self.reset_to_middle()

    def init_weights(self) -> None:
        """Keep the pass-through, whatever initializer the surrounding module applies."""
        self.reset_to_middle()

    @torch.no_grad()
    def reset_to_middle(self) -> None:
        """Let the convolution return the middle slice unchanged."""
        weight = self.conv.weight.view(self.channels, self.channels, self.num_slices)
        weight.zero_()
        nn.init.eye_(weight[:, :, self.num_slices // 2])

    def forward(self, x: Tensor) -> Tensor:
        """Reduce (N, channels, D * H, W) to (N, channels, H, W)."""
        return self.conv(x.unflatten(2, (self.num_slices, -1)).flatten(1, 2))
