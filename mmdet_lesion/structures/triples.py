"""Three values, one for each axis, as a tuple of that length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ..errors import InputError

__all__ = ["triple"]

T = TypeVar("T")


def triple(values: Iterable[T]) -> tuple[T, T, T]:
    """Convert three values to a tuple.

    Raises:
        InputError: There are fewer or more than three.
    """
    found = tuple(values)
    if len(found) != 3:
        raise InputError(f"{found} are {len(found)} values; expected three")
    return found
