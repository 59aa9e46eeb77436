"""Reading of checkpoints, and comparison of their weights with a model."""

from __future__ import annotations

import os
import zipfile
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError

__all__ = ["check_archive", "check_weights", "get_weights", "read_checkpoint", "read_weights"]


def read_checkpoint(path: str | os.PathLike) -> Any:
    """Read a checkpoint without unpickling arbitrary objects.

    Args:
        path: The file.

    Returns:
        Its content, on the CPU.

    Raises:
        InputError: The file does not exist, is damaged or is not a checkpoint.
    """
    if not os.path.isfile(path):
        raise InputError(f"{path} does not exist; expected a checkpoint")
    check_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises many kinds of exceptions for damaged files.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(f"{path} cannot be loaded ({reason}); expected a checkpoint") from error


def check_archive(path: str | os.PathLike) -> None:
    """Verify the checksums of a checkpoint, which ``torch.load`` ignores.

    Checkpoints in the format of PyTorch before 1.6 have none.

    Raises:
        InputError: A checksum is wrong.
    """
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:
        # zipfile raises many kinds of exceptions for damaged files.
        reason = str(error) or type(error).__name__
        raise InputError(f"{path} is damaged ({reason}); expected an intact checkpoint") from None
    if damaged is not None:
        raise InputError(
            f"{path} is damaged (the checksum of {damaged} is wrong); expected an intact checkpoint"
        )


def read_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """Read the weights of a checkpoint without unpickling arbitrary objects.

    Args:
        path: File of a checkpoint with a ``state_dict``, or of a state dict.

    Returns:
        The state dict, on the CPU.

    Raises:
        InputError: The file does not exist, is damaged or is not a checkpoint, or its weights are
            not finite.
    """
    return get_weights(read_checkpoint(path), path)


def get_weights(content: object, source: str | os.PathLike) -> dict[str, Tensor]:
    """Return the state dict of a loaded checkpoint.

    Args:
        content: A checkpoint with a ``state_dict``, or a state dict.
        source: Name of the file for messages.

    Raises:
        InputError: There is no state dict of tensors, or a tensor is not finite.
    """
    weights = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(weights, dict) or not all(map(torch.is_tensor, weights.values())):
        raise InputError(f"{source} contains no state_dict of tensors; expected a checkpoint")
    for name, value in weights.items():
        if not value.isfinite().all():
            raise InputError(f"{source}: {name} contains NaN or infinity; expected finite numbers")
    return weights


def check_weights(
    model: nn.Module,
    weights: dict[str, Tensor],
    source: str | os.PathLike,
    partial: bool = False,
    exact: bool = False,
) -> None:
    """Check that weights have the names and shapes of a model's weights.

    Loading by name would leave the other tensors of the model untrained.

    Args:
        model: The model.
        weights: State dict; additional tensors are allowed unless ``exact`` is set.
        source: Name of the file for messages.
        partial: Whether a single tensor that fits is enough, as for fine-tuning.
        exact: Whether additional tensors are an error.

    Raises:
        InputError: The weights are those of another model.
    """
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    wrong = sorted(name for name, shape in expected.items() if found.get(name) != shape)
    if exact and not wrong and (unused := sorted(set(found) - set(expected))):
        raise InputError(
            f"{source} is a checkpoint of another model: it has {len(unused)} tensors more, such "
            f"as {unused[0]}; expected the config's {len(expected)}"
        )
    if not wrong or (partial and len(wrong) < len(expected)):
        return
    name = wrong[0]
    problem = f"has the shape {found[name]}" if name in found else "is missing"
    raise InputError(
        f"{source} is a checkpoint of another model: {len(wrong)} of the config's {len(expected)} "
        f"tensors do not fit, such as {name}, which {problem}; expected the shape {expected[name]}"
    )
