"""Asymmetric 3D context fusion in front of a 2D convolution."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from .slice_conv import SliceConv


@MODELS.register_module()
class A3DConv(SliceConv):
    """A 2D convolution of slices that are learned mixtures of all slices, channel by channel.

        x'[n, c, k] = Σ_d mixing[d, k, c] x[n, c, d]

    No weight is shared over depth, so that a slice's position in the stack matters. The mixture
    starts as the identity with a little noise: the layer is then nearly the 2D one.

    Args:
        noise: the mixture starts at the identity plus U(-noise, noise).

    Others as in :class:`SliceConv`; ``thickness`` is not looked at.

    Source: Yang et al., "Asymmetric 3D Context Fusion for Universal Lesion Detection", 2021.
    """

    def __init__(self, *args, noise: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        identity = torch.eye(self.num_slices).unsqueeze(-1).repeat(1, 1, self.in_channels)
        self.mixing = nn.Parameter(identity + torch.empty_like(identity).uniform_(-noise, noise))

    def mix(self, slices: Tensor, thickness: Optional[Tensor]) -> Tensor:
        """Mix slices, (N, C, D, H, W) to the same shape."""
        # One product of (D, D) and (D, H * W) matrices for each channel, on views of the input.
        return torch.matmul(self.mixing.permute(2, 1, 0), slices.flatten(3)).view_as(slices)
