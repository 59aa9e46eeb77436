"""Truncated DenseNet-121 on stacks of CT slices."""

from typing import Optional, Sequence, Union

import torch
from mmdet.registry import MODELS
from torch import Tensor

from ..layers import SliceFusion
from .densenet_weights import inflate_stem
from .truncated_densenet import TruncatedDenseNet


@MODELS.register_module()
class DenseNet121(TruncatedDenseNet):
    """Stem and dense blocks 1-3 of DenseNet-121 for a window of CT slices.

    Block 4 is cut. The maps are taken after the norm and ReLU of the transition that follows each
    block, since a dense block's own output is a pre-activation; of the third transition nothing
    else is left, its convolution led to block 4 only.

    ``fusion='grouped'``: the window is read as ``num_slices / 3`` three-channel images (nine
    slices: z-4...z-2, z-1...z+1, z+2...z+4) that go through one shared 2D network. After
    transition 2 a 1x1 convolution over all images writes the centre image's map; the neighbours
    pass on unchanged. The maps keep all images, in the batch dimension at index
    ``window * num_groups + group``; the neck fuses them.

    ``fusion='early'``: one image of ``num_slices`` channels, with an inflated stem.

    ``init_cfg=dict(type='Pretrained', checkpoint=PATH_OR_URL)`` loads torchvision's
    ``densenet121`` files, of 2017 and of today, with or without ``features.``; with ``prefix`` the
    backbone of a checkpoint of our own. A key that fits nowhere is an error.

    Args:
        num_slices: slices in a window; in grouped mode an odd multiple of 3, otherwise at least 1
            (at least 3 with pretrained weights).
        fusion: ``'grouped'`` or ``'early'``.
        growth_rate: channels that a dense layer adds.
        block_config: dense layers of the three blocks.
        num_init_features: channels of the stem.
        bn_size: a layer's bottleneck has ``bn_size * growth_rate`` channels.
        norm_cfg: norm layers, as in mmdet.
        norm_eval: keep batch norms in eval mode in training (running statistics stay).
        frozen_stages: -1 nothing, 0 the stem, k the stem and the first k blocks with their
            transitions. The fusion convolution is never frozen.
        with_cp: recompute each dense layer in the backward pass instead of keeping its
            activations. Results and running statistics are the same.
        init_cfg: as in mmengine; He initialisation of the convolutions without it.

    Sources: DenseNet (Huang et al., 2017); the truncation and the fusion are MULAN's (Yan et al.,
    2019), the nine slices 3DCE's (Yan et al., 2018).
    """

    own_names = ("fusion",)

    def __init__(
        self,
        num_slices: int = 9,
        fusion: str = "grouped",
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
        if fusion not in ("grouped", "early"):
            raise ValueError(f"DenseNet121: fusion={fusion!r}, expected 'grouped' or 'early'")
        if fusion == "grouped" and num_slices % 6 != 3:
            raise ValueError(
                f"DenseNet121: num_slices={num_slices}, expected an odd multiple of 3 with "
                "fusion='grouped', so that one three-channel image is the centre"
            )
        num_groups = num_slices // 3 if fusion == "grouped" else 1
        super().__init__(
            num_slices // num_groups,
            growth_rate,
            block_config,
            num_init_features,
            bn_size,
            norm_cfg,
            norm_eval,
            frozen_stages,
            with_cp,
            init_cfg,
        )
        self.num_slices = num_slices
        self.num_groups = num_groups
        if num_groups > 1:
            self.fusion = SliceFusion(self.out_channels[1] // 2, num_groups)

    def adapt_weight(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Inflate an RGB stem where the own one has more channels."""
        if name == "conv0.weight" and value.shape[1] == 3 < own.shape[1]:
            return inflate_stem(value, own.shape[1])
        return value

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the maps of windows of slices.

        Args:
            x: (N, num_slices, H, W) normalised windows.

        Returns:
            Maps of strides 4, 8 and 16, each (N * num_groups, C, h, w), where the images of a
            window follow each other.
        """
        if x.dim() != 4 or x.shape[1] != self.num_slices:
            raise ValueError(
                f"DenseNet121: input of shape {tuple(x.shape)}, expected (N, {self.num_slices}, "
                "H, W)"
            )
        images = x.reshape(-1, self.num_slices // self.num_groups, *x.shape[-2:])
        stride4, stride8, x = self.forward_images(images)
        if self.num_groups > 1:
            x = self.fuse(x)
        return stride4, stride8, self.forward_block3(x)

    def forward_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute what depends on one image alone, up to transition 2.

        Args:
            images: (M, 3, H, W); with ``fusion='early'`` (M, num_slices, H, W).

        Returns:
            Maps of stride 4 and 8, and the input of the fusion, of stride 16.
        """
        stride4 = self.transition1.activate(self.denseblock1(self.stem(images)))
        x = self.transition1.reduce(stride4)
        stride8 = self.transition2.activate(self.denseblock2(x))
        return stride4, stride8, self.transition2.reduce(stride8)

    def fuse(self, x: Tensor) -> Tensor:
        """Write the centre images' maps anew, (N * num_groups, C, h, w) to the same shape."""
        images = x.unflatten(0, (-1, self.num_groups))
        centre = self.fusion.centre
        fused = self.fusion(x).unsqueeze(1)
        return torch.cat([images[:, :centre], fused, images[:, centre + 1 :]], 1).flatten(0, 1)

    def forward_block3(self, x: Tensor) -> Tensor:
        """Compute the map of stride 16 from the output of transition 2, image by image."""
        return self.transition3.activate(self.denseblock3(x))
