"""3D context by a 1x1 convolution over the maps of neighbouring images."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class SliceFusion(BaseModule):
    """Fuse the maps of a window's images into the centre image's map.

    The images of one window lie side by side in the batch (batch index ``window * num_groups +
    group``), so that putting their channels in one row is a view and no copy. The convolution
    starts as a pass-through of the centre, which leaves pretrained features as they are; the
    neighbours' weights start at zero and grow by their gradient.

    Args:
        channels: channels of one image's map, and of the result.
        num_groups: images in a window; odd, so that one is the centre.

    Source: 3DCE (Yan et al., 2018) fuses neighbouring images' maps; MULAN (Yan et al., 2019)
    does it by a 1x1 convolution in the middle of the network.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_groups = num_groups
        # No bias: what comes before or after has one.
        self.conv = nn.Conv2d(num_groups * channels, channels, 1, bias=False)
        self.reset_to_centre()

    @property
    def centre(self) -> int:
        """Index of the centre image in its window."""
        return self.num_groups // 2

    def init_weights(self) -> None:
        """Keep the pass-through, whatever initialiser the surrounding module applies."""
        self.reset_to_centre()

    @torch.no_grad()
    def reset_to_centre(self) -> None:
        """Let the convolution return the centre image's map unchanged."""
        weight = self.conv.weight.view(self.channels, self.num_groups, self.channels)
        weight.zero_()
        nn.init.eye_(weight[:, self.centre])

    def forward(self, x: Tensor) -> Tensor:
        """Fuse.

        Args:
            x: (N * num_groups, channels, H, W), a window's images next to each other.

        Returns:
            (N, channels, H, W) maps of the centre images.
        """
        return self.conv(x.reshape(-1, self.num_groups * self.channels, *x.shape[-2:]))
