"""Validation of the settings that are common to all phantoms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InputError

__all__ = ["check_settings"]


def check_settings(config: Any, shares: Sequence[str], lowest: Mapping[str, float]) -> None:
    """Check numbers, fractions and ranges.

    Args:
        config: Settings with ``volumes``, ``seed``, ``size``, ``noise`` and the following ones.
        shares: Names of settings that are fractions from 0 to 1.
        lowest: Smallest allowed value of each setting that is a range ``(lowest, highest)``.

    Raises:
        InputError: A setting is out of range.
    """
    if config.volumes < 1:
        raise InputError(f"volumes: expected at least 1, found {config.volumes}")
    if config.seed < 0:
        raise InputError(f"seed: expected a number of at least 0, found {config.seed}")
    if config.size < 32:
        raise InputError(f"size: expected at least 32 pixels, found {config.size}")
    for name in shares:
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(
                f"{name}: expected a fraction in [0, 1], found {getattr(config, name)}"
            )
    for name, least in lowest.items():
        low, high = getattr(config, name)
        if not least <= low <= high:
            raise InputError(
                f"{name}: expected {least} <= lowest <= highest, found {low} and {high}"
            )
    if config.noise < 0:
        raise InputError(f"noise: expected at least 0 HU, found {config.noise}")
