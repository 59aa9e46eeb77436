"""Base class of 2D networks that compute slice stacks as several images."""

from __future__ import annotations

import torch
from torch import Tensor

from ...errors import InputError
from ..layers import SliceFusion
from .strict_loading import StrictlyPretrained

__all__ = ["SliceTrunk", "count_groups"]


def count_groups(trunk: object, num_slices: int) -> int:
    """Return the number of three-channel images of a slice stack.

    Args:
        trunk: The network, whose class the message names.
        num_slices: Slices of a stack.

    Raises:
        InputError: ``num_slices`` is not an odd multiple of 3.
    """
    if num_slices % 6 != 3:
        raise InputError(
            f"{type(trunk).__name__}: num_slices={num_slices}; expected an odd multiple of 3, so "
            "that one three-channel image is the center"
        )
    return num_slices // 3


class SliceTrunk(StrictlyPretrained):
    """Mixin for a 2D network with feature maps of strides 4, 8 and 16, for slice stacks.

    A slice stack is split into images of neighboring slices (nine slices: z-4...z-2, z-1...z+1,
    z+2...z+4), which go through the same 2D network. Before the last layers a 1x1 convolution over
    all images computes the map of the center image; the maps of its neighbors do not change. It is
    initialized as the identity, so that pretrained features are preserved. The feature maps keep
    all images in the batch dimension, at index ``stack * num_groups + group``; the neck fuses them.

    A subclass lists this class before that of the 2D network, calls :meth:`add_fusion` after the
    network's ``__init__``, and implements :meth:`forward_images` and :meth:`forward_block3`.

    Attributes:
        num_slices: Slices of a stack.
        num_groups: Images of a stack.
        out_channels: Channels of the feature maps, from fine to coarse.

    Source: MULAN (Yan et al., 2019) for the fusion; 3DCE (Yan et al., 2018) for the nine slices.
    """

    own_names = ("fusion",)
    num_slices: int
    num_groups: int
    out_channels: list[int]

    def add_fusion(self, num_slices: int, num_groups: int, channels: int) -> None:
        """Set the sizes of a stack and add the fusion of ``channels`` channels of its images."""
        self.num_slices = num_slices
        self.num_groups = num_groups
        if num_groups > 1:
            self.fusion = SliceFusion(channels, num_groups)

    def train(self, mode: bool = True) -> SliceTrunk:
        """Set the mode and return the network, which mmdet's networks do not."""
        super().train(mode)
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the feature maps of slice stacks.

        Args:
            x: Normalized slice stacks (N, num_slices, H, W).

        Returns:
            Maps of strides 4, 8 and 16, each (N * num_groups, C, h, w); the images of a stack are
            consecutive.
        """
        if x.dim() != 4 or x.shape[1] != self.num_slices:
            raise InputError(
                f"{type(self).__name__}: the input has shape {tuple(x.shape)}; expected "
                f"(N, {self.num_slices}, H, W)"
            )
        images = x.reshape(-1, self.num_slices // self.num_groups, *x.shape[-2:])
        stride4, stride8, x = self.forward_images(images)
        if self.num_groups > 1:
            x = self.fuse(x)
        return stride4, stride8, self.forward_block3(x)

    def fuse(self, x: Tensor) -> Tensor:
        """Replace the maps of the center images in (N * num_groups, C, h, w) maps."""
        images = x.unflatten(0, (-1, self.num_groups))
        center = self.fusion.center
        fused = self.fusion(x).unsqueeze(1)
        return torch.cat([images[:, :center], fused, images[:, center + 1 :]], 1).flatten(0, 1)

    def forward_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the layers before the fusion, image by image.

        Args:
            images: Images (M, num_slices / num_groups, H, W).

        Returns:
            Maps of strides 4 and 8, and the input of the fusion.
        """
        raise NotImplementedError

    def forward_block3(self, x: Tensor) -> Tensor:
        """Compute the stride-16 feature map of each image from the result of the fusion."""
        raise NotImplementedError
