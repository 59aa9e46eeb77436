"""Validation of the settings that are common to all phantoms."""

from __future__ import annotations

import math
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
        raise InputError(f"volumes is {config.volumes}; expected at least 1")
    if config.seed < 0:
        raise InputError(f"seed is {config.seed}; expected a number of at least 0")
    if not 32 <= config.size <= 4096:
        raise InputError(f"size is {config.size}; expected at least 32 pixels, at most 4096")
    for name in shares:
        if not 0 <= getattr(config, name) <= 1:
            raise InputError(f"{name} is {getattr(config, name)}; expected a fraction in [0, 1]")
    for name, least in lowest.items():
        low, high = getattr(config, name)
        if not least <= low <= high < math.inf:
            raise InputError(f"{name} is {low} and {high}; expected {least} <= lowest <= highest")
    if not 0 <= config.noise < math.inf:
        raise InputError(f"noise is {config.noise}; expected at least 0 HU")
