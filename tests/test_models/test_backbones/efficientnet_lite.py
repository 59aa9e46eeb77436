"""EfficientNet-Lite0 with the names of its PyTorch files: random weights and the forward pass.

Independent of the backbone under test.
"""

import torch
import torch.nn.functional as F
from random_weights import RandomWeights
from torch import Tensor

#: Kernel, stride, expansion and output channels of each block.
BLOCKS = [
    (3, 1, 1, 16),
    *[(3, 2, 6, 24), (3, 1, 6, 24)],
    *[(5, 2, 6, 40), (5, 1, 6, 40)],
    *[(3, 2, 6, 80), (3, 1, 6, 80), (3, 1, 6, 80)],
    *[(5, 1, 6, 112), (5, 1, 6, 112), (5, 1, 6, 112)],
    *[(5, 2, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192), (5, 1, 6, 192)],
    (3, 1, 6, 320),
]


def make_state_dict(seed=0) -> dict[str, Tensor]:
    """Random weights."""
    weights = RandomWeights(seed)
    conv, norm, out = weights.conv, weights.norm, weights.state_dict

    conv("_conv_stem", 32, 3, 3, 3)
    norm("_bn0", 32)
    channels = 32
    for index, (kernel, _, expansion, out_channels) in enumerate(BLOCKS):
        block, middle = f"_blocks.{index}", channels * expansion
        if expansion > 1:
            conv(f"{block}._expand_conv", middle, channels, 1, 1)
            norm(f"{block}._bn0", middle)
        conv(f"{block}._depthwise_conv", middle, 1, kernel, kernel)
        norm(f"{block}._bn1", middle)
        conv(f"{block}._project_conv", out_channels, middle, 1, 1)
        norm(f"{block}._bn2", out_channels)
        channels = out_channels
    conv("_conv_head", 1280, 320, 1, 1)
    norm("_bn1", 1280)
    out["_fc.weight"] = torch.randn(1000, 1280, generator=weights.generator) * 0.01
    out["_fc.bias"] = torch.randn(1000, generator=weights.generator) * 0.01
    return out


def forward(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """Compute the outputs of all blocks."""
    x = F.relu6(_norm(weights, "_bn0", _conv(x, weights["_conv_stem.weight"], 2)))
    outputs = []
    for index, (_, stride, expansion, _) in enumerate(BLOCKS):
        block, y = f"_blocks.{index}", x
        if expansion > 1:
            y = _conv(y, weights[f"{block}._expand_conv.weight"])
            y = F.relu6(_norm(weights, f"{block}._bn0", y))
        kernel = weights[f"{block}._depthwise_conv.weight"]
        y = F.relu6(_norm(weights, f"{block}._bn1", _conv(y, kernel, stride, len(kernel))))
        y = _norm(weights, f"{block}._bn2", _conv(y, weights[f"{block}._project_conv.weight"]))
        x = x + y if stride == 1 and x.shape == y.shape else y
        outputs.append(x)
    return outputs


def _conv(x, weight, stride=1, groups=1):
    """Convolve with TensorFlow's padding: the output has ceil(size / stride) pixels."""
    pads = []
    for size, kernel in zip(x.shape[:1:-1], weight.shape[:1:-1]):
        pad = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        pads += [pad // 2, pad - pad // 2]
    return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)


def _norm(weights, name, x):
    return F.batch_norm(
        x,
        weights[f"{name}.running_mean"],
        weights[f"{name}.running_var"],
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
        eps=1e-3,
    )
