"""Top-down pathway that merges feature maps into the finest one."""

from typing import Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import InputError
from ..layers import SliceFusion


@MODELS.register_module()
class TopDownPathway(BaseModule):
    """Merge the feature maps of a backbone into the finest one, and the images of a slice stack.

    Coarse maps are upsampled (nearest) and added to the 1x1 lateral of the next finer one. With
    several images in a slice stack, a :class:`SliceFusion` then computes the map of the center
    image.

    All of this is linear, and a 1x1 convolution commutes with nearest upsampling. The weights of
    the fusion are therefore multiplied into those of the laterals, so that no map of
    ``out_channels`` is computed for the neighbors. This gives the same function and gradients
    with less than half of the multiply-adds and a third of the memory.

    Args:
        in_channels: Channels of the feature maps, from fine to coarse.
        out_channels: Channels of the result.
        num_groups: Images of a slice stack, as the backbone's ``num_groups``; odd.
        init_cfg: Initialization config; by default Xavier.

    Source: MULAN (Yan et al., 2019), after FPN (Lin et al., 2017).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 512,
        num_groups: int = 3,
        init_cfg: Union[dict, list[dict], None] = None,
    ) -> None:
        super().__init__(init_cfg or dict(type="Xavier", layer="Conv2d", distribution="uniform"))
        if num_groups % 2 != 1:
            raise InputError(f"TopDownPathway: num_groups={num_groups}; expected an odd number")
        self.out_channels = out_channels
        self.num_groups = num_groups
        self.laterals = nn.ModuleList(nn.Conv2d(c, out_channels, 1) for c in in_channels)
        if num_groups > 1:
            self.fusion = SliceFusion(out_channels, num_groups)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor]:
        """Merge feature maps.

        Args:
            inputs: Feature maps (N * num_groups, C_i, h_i, w_i) from fine to coarse; the images of
                a slice stack are consecutive.

        Returns:
            A tuple of one feature map (N, out_channels, h_0, w_0).
        """
        if len(inputs) != len(self.laterals) or len(inputs[0]) % self.num_groups:
            raise InputError(
                f"TopDownPathway: {len(inputs)} feature maps of {len(inputs[0])} images; expected "
                f"{len(self.laterals)} feature maps of a multiple of {self.num_groups} images"
            )
        levels = [[x.reshape(-1, self.num_groups * x.shape[1], *x.shape[-2:])] for x in inputs]
        # mmcv's RoIAlign ignores the memory format and reads the map as contiguous.
        return (self.merge(levels, self.fused_laterals()).contiguous(),)

    def fused_laterals(self) -> list[tuple[Tensor, Tensor]]:
        """Compute weights (out_channels, num_groups * C_i, 1, 1) and biases of the fused laterals.

        They can be reused until the weights of the neck change.
        """
        return [self._fused(lateral) for lateral in self.laterals]

    def merge(
        self, levels: Sequence[Sequence[Tensor]], laterals: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """Merge the feature maps of slice stacks.

        Args:
            levels: Levels from fine to coarse; each has the feature maps (N, C_k, h_i, w_i) of one
                or more images of the stacks, num_groups * C_i channels altogether.
            laterals: The result of :meth:`fused_laterals`.

        Returns:
            Feature map (N, out_channels, h_0, w_0).
        """
        merged = None
        for (weight, bias), maps in zip(reversed(laterals), reversed(levels)):
            plain = all(x.is_cpu and x.dtype == weight.dtype for x in maps)
            if plain and not torch.is_grad_enabled():
                merged = _add_laterals(merged, maps, weight.flatten(1), bias)
                continue
            x = F.conv2d(torch.cat(tuple(maps), 1), weight, bias)
            if merged is not None:
                x = x + F.interpolate(merged, size=x.shape[-2:], mode="nearest")
            merged = x
        return merged

    def _fused(self, lateral: nn.Conv2d) -> tuple[Tensor, Tensor]:
        """Compute weight and bias of a lateral of all images followed by the fusion."""
        if self.num_groups == 1:
            return lateral.weight, lateral.bias
        fusion = self.fusion.conv.weight.view(self.out_channels, self.num_groups, -1)
        weight = torch.einsum("ogm,mc->ogc", fusion, lateral.weight.flatten(1))
        bias = torch.einsum("ogm,m->o", fusion, lateral.bias)
        return weight.flatten(1)[..., None, None], bias


def _add_laterals(
    coarse: Optional[Tensor], maps: Sequence[Tensor], weight: Tensor, bias: Tensor
) -> Tensor:
    """Add the laterals of the images to the upsampled coarse map, without concatenated maps."""
    n, _, height, width = maps[0].shape
    if coarse is None:
        x = bias.repeat(n, height, width, 1)
    else:
        coarse = coarse + bias[:, None, None]
        x = F.interpolate(coarse, size=(height, width), mode="nearest")
        x = x.permute(0, 2, 3, 1).contiguous()
    pixels = x.flatten(0, 2)
    for image, part in zip(maps, weight.split([image.shape[1] for image in maps], 1)):
        pixels.addmm_(image.permute(0, 2, 3, 1).flatten(0, 2), part.t())
    return x.permute(0, 3, 1, 2)
