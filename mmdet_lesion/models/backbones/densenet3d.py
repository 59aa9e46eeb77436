"""Truncated DenseNet-121 whose 2D convolutions act on mixtures of CT slices."""

from functools import partial
from typing import Optional, Sequence, Union

import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import A3DConv, AlignShiftConv, DepthReduction
from .truncated_densenet import Transition, TruncatedDenseNet

CONVOLUTIONS = {"a3d": A3DConv, "align_shift": AlignShiftConv}


@MODELS.register_module()
class DenseNet3D(TruncatedDenseNet):
    """Stem and dense blocks 1-3 of DenseNet-121 on each slice, with slices mixed in every layer.

    The kernels are 1xkxk, pools and strides 1x2x2, so depth stays as it is. In front of both
    convolutions of each dense layer the slices are mixed (not in the stem and the transitions).
    The map of each block, taken as in :class:`DenseNet121` after the transition's norm and ReLU,
    loses its depth by a (D x 1 x 1) convolution; what follows is a 2D detector on the key slice.

    ``init_cfg=dict(type='Pretrained', checkpoint=PATH_OR_URL)`` loads torchvision's ``densenet121``
    files into the 2D kernels, the stem taking the weights of the middle channel, G. A key that
    fits nowhere is an error.

    Args:
        conv: ``'a3d'`` (:class:`A3DConv`) or ``'align_shift'`` (:class:`AlignShiftConv`).
        num_slices: slices in a window, odd.
        growth_rate: channels that a dense layer adds.
        block_config: dense layers of the three blocks.
        num_init_features: channels of the stem.
        bn_size: a layer's bottleneck has ``bn_size * growth_rate`` channels.
        norm_cfg: norm layers, as in mmdet; statistics are taken over all slices.
        norm_eval: keep batch norms in eval mode in training (running statistics stay).
        frozen_stages: -1 nothing, 0 the stem, k the stem and the first k blocks with their
            transitions. The depth reductions are never frozen.
        with_cp: recompute each dense layer in the backward pass instead of keeping its
            activations. Results and running statistics are the same.
        init_cfg: as in mmengine; He initialisation of the convolutions without it.

    Sources: A3D and AlignShift (Yang et al., 2021 and 2020).
    """

    own_names = ("mixing", "reduction1", "reduction2", "reduction3")
    num_groups = 1

    def __init__(
        self,
        conv: str = "a3d",
        num_slices: int = 7,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24),
        num_init_features: int = 64,
        bn_size: int = 4,
        norm_cfg: Optional[dict] = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: Union[dict, list[dict], None] = None,
    ) -> None:
        if conv not in CONVOLUTIONS:
            raise ValueError(f"DenseNet3D: conv={conv!r}, expected 'a3d' or 'align_shift'")
        if num_slices < 1 or num_slices % 2 == 0:
            raise ValueError(f"DenseNet3D: num_slices={num_slices}, expected an odd number")
        super().__init__(
            1,
            growth_rate,
            block_config,
            num_init_features,
            bn_size,
            norm_cfg,
            norm_eval,
            frozen_stages,
            with_cp,
            init_cfg,
            partial(CONVOLUTIONS[conv], num_slices=num_slices),
        )
        self.num_slices = num_slices
        self.uses_thickness = conv == "align_shift"
        for stage, channels in enumerate(self.out_channels, start=1):
            self.add_module(f"reduction{stage}", DepthReduction(channels, num_slices))

    def adapt_weight(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Take the middle channel of an RGB stem."""
        if name == "conv0.weight" and value.shape[1] == 3:
            return value[:, 1:2]
        return value

    def forward(
        self, x: Tensor, thickness: Optional[Tensor] = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the maps of windows of slices.

        Args:
            x: (N, num_slices, H, W) normalised windows.
            thickness: (N,) mm between the slices of each window; ``'align_shift'`` needs it.

        Returns:
            Maps of strides 4, 8 and 16, each (N, C, h, w).
        """
        if x.dim() != 4 or x.shape[1] != self.num_slices:
            raise ValueError(
                f"DenseNet3D: input of shape {tuple(x.shape)}, expected (N, {self.num_slices}, "
                "H, W)"
            )
        slices = self.stem(x.reshape(-1, 1, *x.shape[-2:])).unflatten(0, (-1, self.num_slices))
        # The slices of a window under each other: (N, C, D * h, w).
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
        """Convolve and pool as the transition does's convolution and pooling, slice by slice."""
        slices = x.unflatten(2, (self.num_slices, -1))
        pooled = F.avg_pool2d(slices.flatten(1, 2), 2).unflatten(1, slices.shape[1:3])
        return transition.conv(pooled.flatten(2, 3))
