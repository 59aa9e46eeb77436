"""Loading of torchvision's DenseNet weights into truncated DenseNets."""

import os
import re
from pathlib import Path
from typing import Callable, Optional
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import print_log
from torch import Tensor, nn

from ...errors import InputError
from ..checkpoint import read_weights

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


def load_densenet_weights(
    module: nn.Module,
    source: str,
    prefix: Optional[str] = None,
    optional: tuple[str, ...] = (),
    adapt: Callable[[str, Tensor, Tensor], Tensor] = lambda name, value, target: value,
) -> None:
    """Load DenseNet weights and reject unexpected and missing keys.

    Args:
        module: Network whose modules have torchvision's names without ``features.``.
        source: Path or http(s) URL of a state dict, or of a checkpoint with a ``state_dict``.
        prefix: Only keys with this prefix are loaded, e.g. ``backbone.`` of a detector's
            checkpoint; the prefix is removed.
        optional: Names of modules or parameters that the file may lack.
        adapt: Function ``(name, loaded, own)`` that returns the tensor to load, for parameters
            whose shape differs from the file's.

    Raises:
        InputError: The file cannot be read, its tensors are not finite, or a key is unexpected,
            missing or of another shape.
    """
    is_url = source.startswith(("http://", "https://"))
    state_dict = read_weights(_download(source) if is_url else source)
    if prefix is not None:
        prefix = prefix.rstrip(".") + "."
        state_dict = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    renamed, dropped = rename_torchvision_keys(state_dict)
    own = module.state_dict()
    renamed = {k: adapt(k, v, own[k]) if k in own else v for k, v in renamed.items()}

    unexpected = sorted(renamed.keys() - own.keys())
    # Files from before PyTorch 0.4.1 lack these counters, which are not used here.
    missing = sorted(
        key
        for key in own.keys() - renamed.keys()
        if not key.endswith("num_batches_tracked") and set(optional).isdisjoint(key.split("."))
    )
    mismatched = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in renamed.items()
        if key in own and value.shape != own[key].shape
    ]
    complaints = [
        f"{what} {_shorten(keys)}"
        for what, keys in [
            ("unexpected", unexpected),
            ("missing", missing),
            ("of another shape", mismatched),
        ]
        if keys
    ]
    if complaints:
        raise InputError(
            f"{source} does not fit this {type(module).__name__}: keys " + "; ".join(complaints)
        )
    module.load_state_dict(renamed, strict=False)
    print_log(
        f"{type(module).__name__}: loaded {len(renamed)} tensors from {source} and skipped "
        f"{len(dropped)} tensors of removed layers",
        logger="current",
    )


def _download(url: str) -> Path:
    """Download a file into torch's cache, first in the main process, then on other machines."""
    path = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(urlparse(url).path))

    def fetch() -> None:
        if path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        hash_prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
        try:
            torch.hub.download_url_to_file(url, str(path), hash_prefix and hash_prefix[1], False)
        except (URLError, OSError) as error:
            raise InputError(
                f"{url} cannot be downloaded ({error}): download it by other means and set "
                "model.backbone.init_cfg.checkpoint to its path"
            ) from error

    if is_main_process():
        fetch()
    barrier()
    fetch()
    return path


def _shorten(keys: list[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
