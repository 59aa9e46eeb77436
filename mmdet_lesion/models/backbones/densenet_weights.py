"""Names and stem of torchvision's DenseNet weights."""

import re

import torch
from torch import Tensor

#: Modules of torchvision's DenseNet that a truncated network lacks.
CUT = re.compile(r"(denseblock4|norm5|classifier|transition3\.conv)\.")
#: torchvision's files from 2017 have keys such as ``norm.1``; the modules are now named ``norm1``.
DOTTED = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.")


def rename_torchvision_keys(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename the keys of torchvision's DenseNet to the names of a truncated DenseNet.

    Args:
        state_dict: State dict with or without the prefixes ``module.`` and ``features.``, with
            keys such as ``denselayer1.norm.1`` or ``denselayer1.norm1``.

    Returns:
        The renamed state dict, and the original keys of modules that a truncated network lacks.
    """
    renamed, dropped = {}, []
    for key, value in state_dict.items():
        name = re.sub(r"^(module\.)?(features\.)?", "", key)
        name = DOTTED.sub(r"\1\2.", name)
        if CUT.match(name):
            dropped.append(key)
        else:
            renamed[name] = value
    return renamed, dropped


def inflate_stem(weight: Tensor, num_slices: int) -> Tensor:
    """Inflate the weights of an RGB stem to slice stacks.

    The input channels are repeated cyclically, and each copy is divided by the number of copies of
    its channel, so that a stack of equal slices gives the same output as an RGB image of equal
    channels.

    Args:
        weight: Weights of the RGB stem, shape (C, 3, k, k).
        num_slices: Input channels of the new stem, at least 3.

    Returns:
        Weights of the new stem, shape (C, num_slices, k, k).
    """
    source = torch.arange(num_slices) % weight.shape[1]
    copies = torch.bincount(source, minlength=weight.shape[1])
    return weight[:, source] / copies[source].to(weight).view(1, -1, 1, 1)
