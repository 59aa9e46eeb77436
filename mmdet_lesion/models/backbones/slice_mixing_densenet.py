"""Truncated DenseNet that mixes neighboring CT slices in every layer."""

from __future__ import annotations

from functools import partial

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from ...errors import InputError
from ..layers import A3DConv, AlignShiftConv, DepthReduction
from .truncated_densenet import Transition, TruncatedDenseNet

CONVOLUTIONS = {"a3d": A3DConv, "align_shift": AlignShiftConv}


@MODELS.register_module()
class SliceMixingDenseNet(TruncatedDenseNet):
    """Stem and dense blocks 1 to 3 of a DenseNet on each slice, with slices mixed in every layer.

    The kernels are 1xkxk and the strides 1x2x2, so the depth does not change. The slices are mixed
    in front of both convolutions of each dense layer, but not in the stem and the transitions. A
    (D x 1 x 1) convolution reduces the map of each block, taken as in :class:`SliceDenseNet`, to
    one slice; a 2D detector on the key slice follows. The default sizes are DenseNet-121's.

    Pretrained weights are loaded into the 2D kernels; the stem takes those of the middle channel
    (green).

    Args:
        conv: ``'a3d'`` (:class:`A3DConv`) or ``'align_shift'`` (:class:`AlignShiftConv`).
        num_slices: Slices of a stack, odd.
        **kwargs: Other arguments of :class:`TruncatedDenseNet`, such as ``norm_cfg`` and
            ``init_cfg``. Batch statistics cover all slices.

    Raises:
        InputError: ``conv``, ``num_slices``, ``block_config`` or ``frozen_stages`` is invalid.

    Source: A3D and AlignShift (Yang et al., 2021 and 2020).
    """

    own_names = ("mixing", "reduction1", "reduction2", "reduction3")
    num_groups = 1

    def __init__(self, conv: str = "a3d", num_slices: int = 7, **kwargs) -> None:
        if conv not in CONVOLUTIONS:
            raise InputError(f"SliceMixingDenseNet: conv={conv!r}; expected 'a3d' or 'align_shift'")
        if num_slices < 1 or num_slices % 2 == 0:
            raise InputError(
                f"SliceMixingDenseNet: num_slices={num_slices}; expected an odd number"
            )
        convolution = partial(CONVOLUTIONS[conv], num_slices=num_slices)
        super().__init__(1, conv_layer=convolution, **kwargs)
        self.num_slices = num_slices
        self.uses_thickness = conv == "align_shift"
        for stage, channels in enumerate(self.out_channels, start=1):
            self.add_module(f"reduction{stage}", DepthReduction(channels, num_slices))

    def adapt_weight(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Take the middle channel of an RGB stem."""
        if name == "conv0.weight" and value.shape[1] == 3:
            return value[:, 1:2]
        return value

    def forward(self, x: Tensor, thickness: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the feature maps of slice stacks.

        Args:
            x: Normalized slice stacks (N, num_slices, H, W).
            thickness: Distance of the slices of each stack in mm, shape (N,); required by
                ``conv='align_shift'``.

        Returns:
            Maps of strides 4, 8 and 16, each (N, C, h, w).
        """
        if x.dim() != 4 or x.shape[1] != self.num_slices:
            raise InputError(
                f"SliceMixingDenseNet: the input has shape {tuple(x.shape)}; expected "
                f"(N, {self.num_slices}, H, W)"
            )
        slices = self.stem(x.reshape(-1, 1, *x.shape[-2:])).unflatten(0, (-1, self.num_slices))
        # Stack the slices below each other: (N, C, D * h, w).
        x = slices.transpose(1, 2).flatten(2, 3)
        context = (thickness,) if self.uses_thickness else ()
        maps = []
        for stage in (1, 2, 3):
            transition = getattr(self, f"transition{stage}")
            x = transition.activate(getattr(self, f"denseblock{stage}")(x, *context))
            maps.append(getattr(self, f"reduction{stage}")(x))
            if stage < 3:
                x = self._halve(x, transition)
        return tuple(maps)

    def _halve(self, x: Tensor, transition: Transition) -> Tensor:
        """Pool and convolve as the transition does, slice by slice."""
        slices = x.unflatten(2, (self.num_slices, -1))
        pooled = F.avg_pool2d(slices.flatten(1, 2), 2).unflatten(1, slices.shape[1:3])
        return transition.conv(pooled.flatten(2, 3))
