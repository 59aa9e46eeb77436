"""Base class of truncated DenseNets, and their blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from ...errors import InputError
from .densenet_weights import rename_torchvision_keys
from .strict_loading import StrictlyPretrained


class TruncatedDenseNet(StrictlyPretrained):
    """Base class with the stem, dense blocks 1 to 3 and their transitions, without ``forward``.

    The modules have torchvision's names.

    Args:
        stem_channels: Input channels of the stem. The default sizes are DenseNet-121's.
        growth_rate: Channels that a dense layer adds.
        block_config: Number of dense layers of the three blocks.
        num_init_features: Channels of the stem.
        bn_size: The bottleneck of a dense layer has ``bn_size * growth_rate`` channels.
        norm_cfg: Config of the norm layers.
        norm_eval: Whether batch norms stay in evaluation mode during training, so that their
            running statistics do not change.
        frozen_stages: Stages without training: -1 none, 0 the stem, k the stem and the first k
            blocks with their transitions; never the layers that combine slices.
        with_cp: Whether to recompute each dense layer in the backward pass to save memory.
            Results and running statistics are the same.
        init_cfg: Initialization config; by default Kaiming for all convolutions.
            ``dict(type='Pretrained', checkpoint=PATH_OR_URL)`` loads torchvision's ``densenet121``
            files, old and new, with or without ``features.``; with ``prefix`` it loads the
            backbone of one of our checkpoints. Unexpected and missing keys are errors.
        conv_layer: Factory of the convolutions of the dense layers.

    Raises:
        InputError: ``block_config`` or ``frozen_stages`` is invalid.
    """

    def __init__(
        self,
        stem_channels: int,
        growth_rate: int = 32,
        block_config: Sequence[int] = (6, 12, 24),
        num_init_features: int = 64,
        bn_size: int = 4,
        norm_cfg: dict | None = None,
        norm_eval: bool = False,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = None,
        conv_layer: Callable[..., nn.Conv2d] = nn.Conv2d,
    ) -> None:
        # mmengine compares the name of a layer's class and of its direct bases.
        layers = ["Conv2d", "SliceConv"]
        super().__init__(init_cfg or dict(type="Kaiming", layer=layers))
        if len(block_config) != 3 or not -1 <= frozen_stages <= 3:
            raise InputError(
                f"{type(self).__name__}: block_config={tuple(block_config)} and frozen_stages="
                f"{frozen_stages}; expected three blocks and a value from -1 to 3"
            )
        self.norm_eval = norm_eval
        self.frozen_stages = frozen_stages
        norm_cfg = norm_cfg or dict(type="BN")

        channels = num_init_features
        self.conv0 = nn.Conv2d(stem_channels, channels, 7, stride=2, padding=3, bias=False)
        self.norm0 = build_norm_layer(norm_cfg, channels)[1]
        self.out_channels = []
        for stage, num_layers in enumerate(block_config, start=1):
            block = DenseBlock(
                num_layers, channels, growth_rate, bn_size, norm_cfg, with_cp, conv_layer
            )
            self.add_module(f"denseblock{stage}", block)
            channels += num_layers * growth_rate
            self.out_channels.append(channels)
            # The last transition ends after its ReLU.
            reduced = channels // 2 if stage < len(block_config) else None
            self.add_module(f"transition{stage}", Transition(channels, reduced, norm_cfg))
            channels = reduced
        self._freeze_stages()

    def convert_weights(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Rename torchvision's keys; those of block 4 and the classifier are left out."""
        return rename_torchvision_keys(weights)

    def stem(self, images: Tensor) -> Tensor:
        """Compute the map of stride 4 from (M, stem_channels, H, W) images."""
        x = F.relu(self.norm0(self.conv0(images)), inplace=True)
        return F.max_pool2d(x, 3, stride=2, padding=1)

    def train(self, mode: bool = True) -> TruncatedDenseNet:
        """Set the mode. Frozen stages and, with ``norm_eval``, batch norms stay in eval mode."""
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
    """Dense block: each layer reads the outputs of all layers before it.

    Input (N, C, H, W), output (N, C + num_layers * growth_rate, H, W). ``with_cp`` recomputes
    each layer in the backward pass. ``context`` is passed to the convolutions of the layers.
    """

    def __init__(
        self,
        num_layers: int,
        in_channels: int,
        growth_rate: int,
        bn_size: int,
        norm_cfg: dict,
        with_cp: bool,
        conv_layer: Callable[..., nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        for i in range(num_layers):
            layer = DenseLayer(
                in_channels + i * growth_rate, growth_rate, bn_size, norm_cfg, conv_layer
            )
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor, *context: Tensor) -> Tensor:
        """Append the outputs of the layers to the channels of ``x``."""
        layers: list[DenseLayer] = list(self.children())
        if not torch.is_grad_enabled() and all(layer.is_affine(x) for layer in layers):
            return self._infer(x, *context)
        maps = [x]
        for layer in self.children():
            run = self._checkpoint if self._recomputes else DenseLayer.__call__
            maps.append(run(layer, maps, *context))
        return torch.cat(maps, 1)

    def _infer(self, x: Tensor, *context: Tensor) -> Tensor:
        """Write the outputs of the layers into one map, without concatenation."""
        layers: list[DenseLayer] = list(self.children())
        start = x.shape[1]
        total = start + sum(layer.conv2.out_channels for layer in layers)
        channels_last = x.is_contiguous(memory_format=torch.channels_last)
        out = torch.empty(
            (len(x), total, *x.shape[2:]),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        out[:, :start] = x
        for layer in layers:
            stop = start + layer.conv2.out_channels
            out[:, start:stop] = layer.infer(out[:, :start], *context)
            start = stop
        return out

    @property
    def _recomputes(self) -> bool:
        return self.with_cp and torch.is_grad_enabled()

    @staticmethod
    def _checkpoint(layer: nn.Module, maps: list[Tensor], *context: Tensor) -> Tensor:
        return checkpoint(
            layer,
            # A copy, since the list grows before the layer is run again.
            list(maps),
            *context,
            use_reentrant=False,
            preserve_rng_state=False,
            context_fn=lambda: (nullcontext(), _frozen_running_statistics(layer)),
        )


class DenseLayer(nn.Module):
    """Norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution on all maps before it.

    Input maps (N, C_i, H, W) with C_i adding up to ``in_channels``; output
    (N, growth_rate, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        bn_size: int,
        norm_cfg: dict,
        conv_layer: Callable[..., nn.Conv2d] = nn.Conv2d,
    ) -> None:
        super().__init__()
        bottleneck = bn_size * growth_rate
        self.norm1 = build_norm_layer(norm_cfg, in_channels)[1]
        self.conv1 = conv_layer(in_channels, bottleneck, 1, bias=False)
        self.norm2 = build_norm_layer(norm_cfg, bottleneck)[1]
        self.conv2 = conv_layer(bottleneck, growth_rate, 3, padding=1, bias=False)

    def forward(self, maps: Sequence[Tensor], *context: Tensor) -> Tensor:
        """Compute the new channels from the maps of all preceding layers."""
        return self._convolve(self.norm1(torch.cat(maps, 1)), *context)

    def infer(self, x: Tensor, *context: Tensor) -> Tensor:
        """Compute the new channels from the first channels of a larger map, if ``is_affine``."""
        norm = self.norm1
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        shift = norm.bias - norm.running_mean * scale
        # On a CPU, torch's batch norm is slow on maps that are not contiguous.
        x = torch.addcmul(shift[:, None, None], x, scale[:, None, None])
        return self._convolve(x, *context)

    def is_affine(self, x: Tensor) -> bool:
        """Return whether the first norm is a batch norm with fixed statistics, in x's precision."""
        norm = self.norm1
        return (
            isinstance(norm, _BatchNorm)
            and not norm.training
            and norm.running_mean is not None
            and norm.weight is not None
            and norm.weight.dtype == x.dtype
        )

    def _convolve(self, x: Tensor, *context: Tensor) -> Tensor:
        x = self.conv1(F.relu(x, inplace=True), *context)
        return self.conv2(F.relu(self.norm2(x), inplace=True), *context)


class Transition(nn.Module):
    """Norm and ReLU (``activate``), then a 1x1 convolution and average pooling (``reduce``).

    With ``out_channels=None`` the transition ends after its ReLU.
    """

    def __init__(self, in_channels: int, out_channels: int | None, norm_cfg: dict) -> None:
        super().__init__()
        self.norm = build_norm_layer(norm_cfg, in_channels)[1]
        if out_channels is not None:
            self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def activate(self, x: Tensor) -> Tensor:
        """Apply norm and ReLU; the result is a feature map of the backbone."""
        return F.relu(self.norm(x), inplace=True)

    def reduce(self, x: Tensor) -> Tensor:
        """Convolve and halve the size, (N, C, H, W) to (N, out_channels, H // 2, W // 2)."""
        # Pooling commutes with a 1x1 convolution; pooling first saves three quarters of the work.
        return self.conv(F.avg_pool2d(x, 2))


@contextmanager
def _frozen_running_statistics(layer: nn.Module) -> Iterator[None]:
    """Prevent batch norms from counting a recomputed batch a second time."""
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
