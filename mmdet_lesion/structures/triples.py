"""Three values, one for each axis, as a tuple of that length."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ..errors import InputError

__all__ = ["triple"]

T = TypeVar("T")


def triple(values: Iterable[T], name: str = "the triple") -> tuple[T, T, T]:
    """Convert three values to a tuple.

    Args:
        values: One for each axis.
        name: What they are, for the message.

    Raises:
        InputError: There are fewer or more than three.
    """
    found = tuple(values)
    if len(found) != 3:
        raise InputError(f"{name} is {found}; expected three values")
    return found
