"""Residual network for volumes."""

from typing import Optional, Sequence, Union

import torch
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...errors import InputError


class BasicBlock3D(nn.Module):
    """Residual block of two 3x3x3 convolutions.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        norm_cfg: Config of the norm layers.

    Source: He et al., "Deep Residual Learning for Image Recognition" (2016).
    """

    def __init__(self, in_channels: int, channels: int, norm_cfg: dict) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(in_channels, channels, 3, padding=1, bias=False)
        self.norm1 = build_norm_layer(norm_cfg, channels)[1]
        self.conv2 = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, channels)[1]
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = None
        if in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv3d(in_channels, channels, 1, bias=False),
                build_norm_layer(norm_cfg, channels)[1],
            )

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output (N, channels, D, H, W) from x (N, in_channels, D, H, W)."""
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        return self.relu(y + (x if self.shortcut is None else self.shortcut(x)))


@MODELS.register_module()
class ResNet3D(BaseModule):
    """Residual network with feature maps of strides 2, 4, 8, 16, ...

    The stem has an even kernel and stages begin with a pooling of size 2, so that location ``i``
    of a map of stride s is centered at ``(i + 0.5) * s``, like the anchors, and flips commute with
    the downsampling. Kernels of size 3 and stride 2 would shift each map by half a voxel.

    Args:
        in_channels: Channels of the input.
        channels: Channels of each stage.
        stage_blocks: Number of basic blocks of each stage; by default 20 in total, few of them at
            stride 2, where they are most expensive.
        norm_cfg: Config of the norm layers: ``BN3d``, ``SyncBN``, ``GN`` or ``IN3d``.
        with_cp: Whether to recompute the blocks in the backward pass to save memory. The running
            statistics of batch norms are then updated twice per batch.
        zero_init_residual: Whether to initialize the last norm of each block with zero, so that
            the block is the identity, as in mmdet's ``ResNet``. Otherwise the sum over 20 blocks
            leads to confident predictions of an untrained head.
        init_cfg: Initialization config; by default Kaiming.

    Source: FocalMix (Wang et al., 2020), section 4.1, for the 20 basic blocks and the strides.
    """

    def __init__(
        self,
        in_channels: int = 1,
        channels: Sequence[int] = (32, 64, 128, 256),
        stage_blocks: Sequence[int] = (2, 4, 8, 6),
        norm_cfg: Optional[dict] = None,
        with_cp: bool = False,
        zero_init_residual: bool = True,
        init_cfg: Union[dict, list[dict], None] = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type="Kaiming", layer="Conv3d"),
                dict(type="Constant", val=1, layer=["_BatchNorm", "GroupNorm"]),
            ]
        )
        if len(channels) != len(stage_blocks) or min(*channels, *stage_blocks) < 1:
            raise InputError(
                f"ResNet3D: channels={channels} and stage_blocks={stage_blocks}; expected positive "
                "numbers and equal lengths"
            )
        norm_cfg = norm_cfg or dict(type="BN3d")
        self.with_cp = with_cp
        self.zero_init_residual = zero_init_residual
        self.stem = nn.Sequential(
            nn.Conv3d(in_channels, channels[0], 4, stride=2, padding=1, bias=False),
            build_norm_layer(norm_cfg, channels[0])[1],
            nn.ReLU(inplace=True),
        )
        self.pool = nn.MaxPool3d(2)
        self.stages = nn.ModuleList()
        width = channels[0]
        for out, blocks in zip(channels, stage_blocks):
            stage = [BasicBlock3D(width if i == 0 else out, out, norm_cfg) for i in range(blocks)]
            self.stages.append(nn.ModuleList(stage))
            width = out

    def init_weights(self) -> None:
        """Initialize by ``init_cfg``, then every block as the identity."""
        super().init_weights()
        if self.zero_init_residual:
            for stage in self.stages:
                for block in stage:
                    # Instance norm has no weight by default.
                    if block.norm2.weight is not None:
                        nn.init.zeros_(block.norm2.weight)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the feature maps.

        Args:
            x: Volumes (N, in_channels, D, H, W), edges divisible by the largest stride.

        Returns:
            One feature map (N, channels[i], D / s, H / s, W / s) of each stage, s = 2, 4, ...
        """
        maps = []
        x = self.stem(x)
        for index, stage in enumerate(self.stages):
            if index:
                x = self.pool(x)
            for block in stage:
                if self.with_cp and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            maps.append(x)
        return tuple(maps)
