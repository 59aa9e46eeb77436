"""ImageNet weights in torchvision's DenseNet layout for truncated DenseNets."""

import os
import pickle
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

#: What the classifier has and a truncated network has not.
CUT = re.compile(r"(denseblock4|norm5|classifier|transition3\.conv)\.")
#: torchvision's files of 2017 write ``norm.1`` where its modules are now called ``norm1``.
DOTTED = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12])\.")


def rename_torchvision_keys(state_dict: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Bring keys of torchvision's DenseNet to the names of our modules.

    Args:
        state_dict: with or without the prefixes ``module.`` and ``features.``, with
            ``denselayer1.norm.1`` or ``denselayer1.norm1``.

    Returns:
        The weights under our names, and the original keys of the parts that were cut off.
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
    """Inflate a stem for RGB images to a stack of slices.

    The input channels are repeated in turn, and each copy is divided by the number of copies of
    its channel, so that a stack of equal slices gives what the equal RGB image gave.

    Args:
        weight: (C, 3, k, k).
        num_slices: channels of the new stem, at least 3.

    Returns:
        (C, num_slices, k, k).
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
    """Load DenseNet weights with every key accounted for.

    Args:
        module: network whose modules are named as torchvision's, without ``features.``.
        source: local path or http(s) URL of a state dict, also under ``state_dict``.
        prefix: takes the keys that begin with it, e.g. ``backbone.`` of a detector's checkpoint.
        optional: names of own modules or parameters that the file need not have.
        adapt: ``(name, loaded, own)`` to the tensor to load, for own parameters whose shape
            differs on purpose.

    Raises:
        InputError: the file cannot be read, or a key is unexpected, missing or of another shape.
    """
    state_dict = read_state_dict(source)
    if prefix is not None:
        prefix = prefix.rstrip(".") + "."
        state_dict = {k[len(prefix) :]: v for k, v in state_dict.items() if k.startswith(prefix)}
    renamed, dropped = rename_torchvision_keys(state_dict)
    own = module.state_dict()
    renamed = {k: adapt(k, v, own[k]) if k in own else v for k, v in renamed.items()}

    unexpected = sorted(renamed.keys() - own.keys())
    # Files older than PyTorch 0.4.1 have no counters, and nothing here reads them.
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
            f"{source} does not hold the weights of this {type(module).__name__}: keys "
            + "; ".join(complaints)
        )
    module.load_state_dict(renamed, strict=False)
    print_log(
        f"{type(module).__name__}: {len(renamed)} tensors loaded from {source}, {len(dropped)} of "
        "the parts that are cut off left out",
        logger="current",
    )


def read_state_dict(source: str) -> dict[str, Tensor]:
    """Read a state dict from a path or URL by torch's safe loading.

    Raises:
        InputError: no such file, no network, or not a state dict.
    """
    path = _download(source) if source.startswith(("http://", "https://")) else Path(source)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file with pretrained weights") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InputError(f"{source} is no checkpoint that can be read: {reason}") from error
    if isinstance(content, dict):
        content = content.get("state_dict", content)
    if not isinstance(content, dict) or not all(torch.is_tensor(v) for v in content.values()):
        raise InputError(f"{source}: expected a state dict of tensors")
    return content


def _download(url: str) -> Path:
    """Fetch a file into torch's cache: the main process first, then the others find it there."""
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
                f"{url} cannot be downloaded ({error}): fetch it elsewhere and give its path as "
                "model.backbone.init_cfg.checkpoint"
            ) from error

    if is_main_process():
        fetch()
    barrier()
    fetch()
    return path


def _shorten(keys: list[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
