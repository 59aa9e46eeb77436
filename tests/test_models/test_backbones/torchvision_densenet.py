"""Reimplementation of torchvision's densenet121: state dict and forward pass.

Independent of the backbone under test.
"""

import re

import torch
import torch.nn.functional as F
from random_weights import RandomWeights
from torch import Tensor


def make_state_dict(
    growth=32, blocks=(6, 12, 24, 16), stem=64, bottleneck=4, classes=1000, seed=0
) -> dict[str, Tensor]:
    """Random weights with torchvision's current names (``features.…``)."""
    weights = RandomWeights(seed)
    conv, norm, out = weights.conv, weights.norm, weights.state_dict

    conv("features.conv0", stem, 3, 7, 7)
    norm("features.norm0", stem)
    channels = stem
    for b, layers in enumerate(blocks, start=1):
        for i in range(1, layers + 1):
            layer = f"features.denseblock{b}.denselayer{i}"
            norm(f"{layer}.norm1", channels)
            conv(f"{layer}.conv1", bottleneck * growth, channels, 1, 1)
            norm(f"{layer}.norm2", bottleneck * growth)
            conv(f"{layer}.conv2", growth, bottleneck * growth, 3, 3)
            channels += growth
        if b < len(blocks):
            norm(f"features.transition{b}.norm", channels)
            conv(f"features.transition{b}.conv", channels // 2, channels, 1, 1)
            channels //= 2
    norm("features.norm5", channels)
    out["classifier.weight"] = torch.randn(classes, channels, generator=weights.generator)
    out["classifier.bias"] = torch.randn(classes, generator=weights.generator)
    return out


def to_old_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename to the names of the files of 2017: ``norm.1``, and no batch counters."""
    return {
        re.sub(r"(denselayer\d+\.)(norm|conv)([12])", r"\1\2.\3", key): value
        for key, value in state_dict.items()
        if not key.endswith("num_batches_tracked")
    }


def forward(state_dict: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Compute the maps after norm and ReLU of transitions 1 to 3 in evaluation mode."""

    def norm_relu(x, name):
        w, b, m, v = (
            state_dict[f"features.{name}.{part}"][None, :, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return torch.relu((x - m) / torch.sqrt(v + 1e-5) * w + b)

    def conv(x, name, **kwargs):
        return F.conv2d(x, state_dict[f"features.{name}.weight"], **kwargs)

    x = norm_relu(conv(x, "conv0", stride=2, padding=3), "norm0")
    x = F.max_pool2d(x, 3, 2, 1)
    taps = []
    for b in (1, 2, 3):
        i = 1
        while f"features.denseblock{b}.denselayer{i}.conv1.weight" in state_dict:
            layer = f"denseblock{b}.denselayer{i}"
            y = conv(norm_relu(x, f"{layer}.norm1"), f"{layer}.conv1")
            y = conv(norm_relu(y, f"{layer}.norm2"), f"{layer}.conv2", padding=1)
            x = torch.cat([x, y], 1)
            i += 1
        x = norm_relu(x, f"transition{b}.norm")
        taps.append(x)
        x = F.avg_pool2d(conv(x, f"transition{b}.conv"), 2)
    return taps
