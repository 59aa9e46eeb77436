"""3D context by a 1x1 convolution over the maps of neighboring images."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn


class SliceFusion(BaseModule):
    """Fuse the maps of the images of a slice stack into the map of its center image.

    The images of a stack are consecutive in the batch (index ``stack * num_groups + group``), so
    that concatenating their channels is a view. The convolution is initialized as the identity of
    the center image, which preserves pretrained features; the weights of its neighbors are
    initialized with zero.

    Args:
        channels: Channels of the map of one image, and of the result.
        num_groups: Images of a stack; odd, so that one is the center.

    Source: 3DCE (Yan et al., 2018) fuses neighboring images' maps; MULAN (Yan et al., 2019)
    does it by a 1x1 convolution in the middle of the network.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.channels = channels
        self.num_groups = num_groups
        # Without a bias, since the adjacent layers have one.
        self.conv = nn.Conv2d(num_groups * channels, channels, 1, bias=False)
        self.reset_to_center()

    @property
    def center(self) -> int:
        """Index of the center image in its stack."""
        return self.num_groups // 2

    def init_weights(self) -> None:
        """Keep the identity, whatever initialization the surrounding module applies."""
        self.reset_to_center()

    @torch.no_grad()
    def reset_to_center(self) -> None:
        """Set the weights so that the map of the center image is returned unchanged."""
        weight = self.conv.weight.view(self.channels, self.num_groups, self.channels)
        weight.zero_()
        nn.init.eye_(weight[:, self.center])

    def forward(self, x: Tensor) -> Tensor:
        """Fuse the maps.

        Args:
            x: Maps (N * num_groups, channels, H, W); the images of a stack are consecutive.

        Returns:
            Maps of the center images (N, channels, H, W).
        """
        return self.conv(x.reshape(-1, self.num_groups * self.channels, *x.shape[-2:]))
