"""2D convolution with asymmetric 3D context fusion (A3D)."""

from typing import Optional

import torch
from mmdet.registry import MODELS
from torch import Tensor, nn

from .slice_conv import SliceConv


@MODELS.register_module()
class A3DConv(SliceConv):
    """2D convolution of slices, each a learned linear combination of all slices, per channel.

        x'[n, c, k] = Σ_d mixing[d, k, c] x[n, c, d]

    The weights are not shared over depth, so the layer depends on the position of a slice in the
    stack. They are initialized near the identity.

    Args:
        noise: The weights are initialized with the identity plus U(-noise, noise).

    Other arguments are those of :class:`SliceConv`; ``thickness`` is not used.

    Source: Yang et al., "Asymmetric 3D Context Fusion for Universal Lesion Detection", 2021.
    """

    def __init__(self, *args, noise: float = 0.1, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        identity = torch.eye(self.num_slices).unsqueeze(-1).repeat(1, 1, self.in_channels)
        self.mixing = nn.Parameter(identity + torch.empty_like(identity).uniform_(-noise, noise))

    def mix(self, slices: Tensor, thickness: Optional[Tensor]) -> Tensor:
        """Mix features across slices; the shape (N, C, D, H, W) is unchanged."""
        # A product of (D, D) and (D, H * W) matrices for each channel, without copying the input.
        return torch.matmul(self.mixing.permute(2, 1, 0), slices.flatten(3)).view_as(slices)
