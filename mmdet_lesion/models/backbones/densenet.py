"""Truncated DenseNet-121 on stacks of CT slices."""

from contextlib import contextmanager, nullcontext
from typing import Iterator, Optional, Sequence, Union

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ..layers import SliceFusion
from .densenet_weights import inflate_stem, load_densenet_weights


@MODELS.register_module()
class DenseNet121(BaseModule):
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
        super().__init__(init_cfg or dict(type="Kaiming", layer="Conv2d"))
        if fusion not in ("grouped", "early"):
            raise ValueError(f"DenseNet121: fusion={fusion!r}, expected 'grouped' or 'early'")
        if fusion == "grouped" and num_slices % 6 != 3:
            raise ValueError(
                f"DenseNet121: num_slices={num_slices}, expected an odd multiple of 3 with "
                "fusion='grouped', so that one three-channel image is the centre"
            )
        if len(block_config) != 3 or not -1 <= frozen_stages <= 3:
            raise ValueError(
                f"DenseNet121: block_config={tuple(block_config)} and frozen_stages="
                f"{frozen_stages}, expected three blocks and a value from -1 to 3"
            )
        self.num_slices = num_slices
        self.num_groups = num_slices // 3 if fusion == "grouped" else 1
        self.norm_eval = norm_eval
        self.frozen_stages = frozen_stages
        norm_cfg = norm_cfg or dict(type="BN")

        channels = num_init_features
        in_channels = num_slices // self.num_groups
        self.conv0 = nn.Conv2d(in_channels, channels, 7, stride=2, padding=3, bias=False)
        self.norm0 = build_norm_layer(norm_cfg, channels)[1]
        self.out_channels = []
        for stage, num_layers in enumerate(block_config, start=1):
            block = DenseBlock(num_layers, channels, growth_rate, bn_size, norm_cfg, with_cp)
            self.add_module(f"denseblock{stage}", block)
            channels += num_layers * growth_rate
            self.out_channels.append(channels)
            # The last transition is cut after its ReLU.
            reduced = channels // 2 if stage < len(block_config) else None
            self.add_module(f"transition{stage}", Transition(channels, reduced, norm_cfg))
            channels = reduced
            if stage == 2 and self.num_groups > 1:
                self.fusion = SliceFusion(channels, self.num_groups)
        self._freeze_stages()

    def init_weights(self) -> None:
        """Initialise; pretrained weights are loaded here, since mmengine would skip misfits."""
        init_cfgs = self.init_cfg if isinstance(self.init_cfg, list) else [self.init_cfg]
        pretrained = [cfg for cfg in init_cfgs if cfg["type"] == "Pretrained"]
        first_time = not self.is_init
        self.init_cfg = [cfg for cfg in init_cfgs if cfg["type"] != "Pretrained"]
        super().init_weights()
        self.init_cfg = init_cfgs
        if first_time:
            for cfg in pretrained:
                load_densenet_weights(
                    self,
                    cfg["checkpoint"],
                    prefix=cfg.get("prefix"),
                    optional=("fusion.",),
                    adapt=self._adapt_stem,
                )

    @staticmethod
    def _adapt_stem(name: str, value: Tensor, own: Tensor) -> Tensor:
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
        x = F.relu(self.norm0(self.conv0(images)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        stride4 = self.transition1.activate(self.denseblock1(x))
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

    def train(self, mode: bool = True) -> "DenseNet121":
        """Set the mode; frozen stages, and with ``norm_eval`` all batch norms, stay in eval."""
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        stages = [(self.conv0, self.norm0)]
        stages += [
            (getattr(self, f"denseblock{i}"), getattr(self, f"transition{i}")) for i in (1, 2, 3)
        ]
        for stage in stages[: self.frozen_stages + 1]:
            for module in stage:
                module.eval()
                module.requires_grad_(False)


class DenseBlock(nn.Module):
    """Layers that each read the outputs of all before them.

    Input (N, C, H, W), output (N, C + num_layers * growth_rate, H, W). ``with_cp`` recomputes
    each layer in the backward pass.
    """

    def __init__(
        self,
        num_layers: int,
        in_channels: int,
        growth_rate: int,
        bn_size: int,
        norm_cfg: dict,
        with_cp: bool,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        for i in range(num_layers):
            layer = DenseLayer(in_channels + i * growth_rate, growth_rate, bn_size, norm_cfg)
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Append the layers' outputs to the channels of ``x``."""
        maps = [x]
        for layer in self.children():
            maps.append(self._recomputed(layer, maps) if self._saves else layer(*maps))
        return torch.cat(maps, 1)

    @property
    def _saves(self) -> bool:
        return self.with_cp and torch.is_grad_enabled()

    @staticmethod
    def _recomputed(layer: nn.Module, maps: list[Tensor]) -> Tensor:
        return checkpoint(
            layer,
            *maps,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _running_statistics_kept(layer)),
        )


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution on all maps before it.

    Input maps (N, C_i, H, W) with C_i adding up to ``in_channels``; output
    (N, growth_rate, H, W).
    """

    def __init__(self, in_channels: int, growth_rate: int, bn_size: int, norm_cfg: dict) -> None:
        super().__init__()
        bottleneck = bn_size * growth_rate
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = nn.Conv2d(in_channels, bottleneck, 1, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, bottleneck)[1]
        self.conv2 = nn.Conv2d(bottleneck, growth_rate, 3, padding=1, bias=False)

    def forward(self, *maps: Tensor) -> Tensor:
        """Compute the new channels from all maps before."""
        x = self.conv1(F.relu(self.norm1(torch.cat(maps, 1)), inplace=True))
        return self.conv2(F.relu(self.norm2(x), inplace=True))


class Transition(nn.Module):
    """Norm and ReLU (``activate``), then a 1x1 convolution and average pooling (``reduce``).

    ``out_channels=None`` is a transition cut after its ReLU.
    """

    def __init__(self, in_channels: int, out_channels: Optional[int], norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, in_channels)[1]
        if out_channels is not None:
            self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def activate(self, x: Tensor) -> Tensor:
        """Norm and ReLU; the map that a backbone gives away."""
        return F.relu(self.norm(x), inplace=True)

    def reduce(self, x: Tensor) -> Tensor:
        """Convolve and halve the size, (N, C, H, W) to (N, out_channels, H // 2, W // 2)."""
        # Pooling commutes with a 1x1 convolution and leaves it a quarter of the work.
        return self.conv(F.avg_pool2d(x, 2))


@contextmanager
def _running_statistics_kept(layer: nn.Module) -> Iterator[None]:
    """Keep batch norms from counting a recomputed batch a second time."""
    norms = [m for m in layer.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(count)
