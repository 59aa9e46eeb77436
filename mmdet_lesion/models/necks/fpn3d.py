"""Feature pyramid for volumes."""

from typing import Sequence, Union

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import InputError


@MODELS.register_module()
class FPN3D(BaseModule):
    """Feature pyramid: 1x1x1 laterals, top-down sums, and a 3x3x3 convolution on each level.

    Args:
        in_channels: Channels of the feature maps, from fine to coarse.
        out_channels: Channels of every level.
        init_cfg: Initialization config; by default Xavier.

    Source: FPN (Lin et al., 2017).
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int = 64,
        init_cfg: Union[dict, list[dict], None] = None,
    ) -> None:
        super().__init__(init_cfg or dict(type="Xavier", layer="Conv3d", distribution="uniform"))
        self.laterals = nn.ModuleList(nn.Conv3d(c, out_channels, 1) for c in in_channels)
        self.outputs = nn.ModuleList(
            nn.Conv3d(out_channels, out_channels, 3, padding=1) for _ in in_channels
        )

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the levels of the pyramid.

        Args:
            inputs: Feature maps (N, C_i, D_i, H_i, W_i) from fine to coarse; the size halves from
                level to level.

        Returns:
            Feature maps (N, out_channels, D_i, H_i, W_i) from fine to coarse.

        Raises:
            InputError: The number of feature maps is not that of ``in_channels``.
        """
        if len(inputs) != len(self.laterals):
            raise InputError(f"FPN3D: {len(inputs)} feature maps; expected {len(self.laterals)}")
        merged, levels = None, []
        for lateral, output, x in zip(
            reversed(self.laterals), reversed(self.outputs), reversed(inputs)
        ):
            x = lateral(x)
            if merged is not None:
                x = x + F.interpolate(merged, size=x.shape[-3:], mode="nearest")
            merged = x
            levels.append(output(x))
        return tuple(levels[::-1])
