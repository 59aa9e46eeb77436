"""Truncated DenseNet for stacks of CT slices."""

from __future__ import annotations

from mmdet.registry import MODELS
from torch import Tensor

from ...errors import InputError
from .densenet_weights import inflate_stem
from .slice_trunk import SliceTrunk, count_groups
from .truncated_densenet import TruncatedDenseNet


@MODELS.register_module()
class SliceDenseNet(SliceTrunk, TruncatedDenseNet):
    """Stem and dense blocks 1 to 3 of a DenseNet for a slice stack; by default DenseNet-121's.

    Block 4 is removed. The feature maps are taken after the norm and ReLU of the transition that
    follows each block, since the output of a dense block is a pre-activation. The convolution of
    the third transition, which only fed block 4, is removed too.

    ``fusion='grouped'``: The slice stack is split into ``num_slices / 3`` three-channel images
    (nine slices: z-4...z-2, z-1...z+1, z+2...z+4) that go through one shared 2D network. After
    transition 2 a 1x1 convolution over all images computes the map of the center image; the maps
    of its neighbors do not change. The feature maps keep all images in the batch dimension, at
    index ``stack * num_groups + group``; the neck fuses them.

    ``fusion='early'``: The slice stack is one image of ``num_slices`` channels, and the weights of
    a pretrained stem are repeated.

    Args:
        num_slices: Slices of a stack; with ``fusion='grouped'`` an odd multiple of 3, otherwise at
            least 1 (at least 3 with pretrained weights).
        fusion: ``'grouped'`` or ``'early'``.
        **kwargs: Other arguments of :class:`TruncatedDenseNet`, such as ``norm_cfg`` and
            ``init_cfg``.

    Raises:
        InputError: ``fusion``, ``num_slices``, ``block_config`` or ``frozen_stages`` is invalid.

    Source: DenseNet (Huang et al., 2017); MULAN (Yan et al., 2019) for the truncation and the
    fusion; 3DCE (Yan et al., 2018) for the nine slices.
    """

    def __init__(self, num_slices: int = 9, fusion: str = "grouped", **kwargs) -> None:
        if fusion not in ("grouped", "early"):
            raise InputError(f"SliceDenseNet: fusion={fusion!r}; expected 'grouped' or 'early'")
        num_groups = count_groups(self, num_slices) if fusion == "grouped" else 1
        super().__init__(num_slices // num_groups, **kwargs)
        self.add_fusion(num_slices, num_groups, self.out_channels[1] // 2)

    def adapt_weight(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Repeat the weights of an RGB stem if the own stem has more channels."""
        if name == "conv0.weight" and value.shape[1] == 3 < own.shape[1]:
            return inflate_stem(value, own.shape[1])
        return value

    def forward_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the layers up to transition 2, image by image.

        Args:
            images: Images (M, 3, H, W); with ``fusion='early'`` (M, num_slices, H, W).

        Returns:
            Maps of strides 4 and 8, and the input of the fusion, which has stride 16.
        """
        stride4 = self.transition1.activate(self.denseblock1(self.stem(images)))
        x = self.transition1.reduce(stride4)
        stride8 = self.transition2.activate(self.denseblock2(x))
        return stride4, stride8, self.transition2.reduce(stride8)

    def forward_block3(self, x: Tensor) -> Tensor:
        """Compute the stride-16 feature map of each image from the output of transition 2."""
        return self.transition3.activate(self.denseblock3(x))
