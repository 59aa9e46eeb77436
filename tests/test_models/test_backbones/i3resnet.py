"""Inflated 3D ResNet as in Merlin and Astra: a random state dict and the forward pass.

Independent of the backbone under test.
"""

import torch.nn.functional as F
from random_weights import RandomWeights
from torch import Tensor


def make_state_dict(blocks=(3, 4, 6, 3), width=4, seed=0) -> dict[str, Tensor]:
    """Random weights with the names and shapes of the files, for a narrow bottleneck ResNet."""
    weights = RandomWeights(seed)
    conv, norm = weights.conv, weights.norm

    conv("conv1", width, 3, 3, 7, 7)
    norm("bn1", width)
    channels = width
    for stage, count in enumerate(blocks):
        planes = width * 2**stage
        for index in range(count):
            block = f"layer{stage + 1}.{index}"
            conv(f"{block}.conv1", planes, channels, 1, 1, 1)
            norm(f"{block}.bn1", planes)
            conv(f"{block}.conv2", planes, planes, 3, 3, 3)
            norm(f"{block}.bn2", planes)
            conv(f"{block}.conv3", 4 * planes, planes, 1, 1, 1)
            norm(f"{block}.bn3", 4 * planes)
            if index == 0:
                conv(f"{block}.downsample.0", 4 * planes, channels, 1, 1, 1)
                norm(f"{block}.downsample.1", 4 * planes)
            channels = 4 * planes
    return weights.state_dict


def forward_stem(weights: dict[str, Tensor], volume: Tensor) -> Tensor:
    """Convolve a volume (D, X, Y), x toward the right and y toward anterior, as three channels.

    Beyond its ends along z the volume is repeated, in the plane it is padded with zeros.
    """
    return _conv(volume.expand(1, 3, -1, -1, -1), weights["conv1.weight"], (1, 2, 2))


def forward(weights: dict[str, Tensor], volume: Tensor, stages: int = 3) -> list[Tensor]:
    """Compute the maps (1, C, d, x, y) of the first stages."""
    x = F.relu(_norm(weights, "bn1", forward_stem(weights, volume)))
    x = F.max_pool3d(x, 3, stride=2, padding=1)
    maps = []
    for stage in range(1, stages + 1):
        index = 0
        while f"layer{stage}.{index}.conv1.weight" in weights:
            x = _block(weights, f"layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
            index += 1
        maps.append(x)
    return maps


def _block(weights, name, x, stride):
    y = F.relu(_norm(weights, f"{name}.bn1", _conv(x, weights[f"{name}.conv1.weight"])))
    y = _conv(y, weights[f"{name}.conv2.weight"], (stride,) * 3)
    y = F.relu(_norm(weights, f"{name}.bn2", y))
    y = _norm(weights, f"{name}.bn3", _conv(y, weights[f"{name}.conv3.weight"]))
    if f"{name}.downsample.0.weight" in weights:
        x = _conv(x, weights[f"{name}.downsample.0.weight"], (stride,) * 3)
        x = _norm(weights, f"{name}.downsample.1", x)
    return F.relu(x + y)


def _conv(x, weight, stride=(1, 1, 1)):
    depth, height, width = (size // 2 for size in weight.shape[2:])
    x = F.pad(x, (0, 0, 0, 0, depth, depth), mode="replicate")
    return F.conv3d(x, weight, stride=stride, padding=(0, height, width))


def _norm(weights, name, x):
    return F.batch_norm(
        x,
        weights[f"{name}.running_mean"],
        weights[f"{name}.running_var"],
        weights[f"{name}.weight"],
        weights[f"{name}.bias"],
    )
