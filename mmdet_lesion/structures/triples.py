"""Tuples of one value per axis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from ..errors import InputError

__all__ = ["triple"]

T = TypeVar("T")


def triple(values: Iterable[T], name: str = "the triple") -> tuple[T, T, T]:
    """Convert three values to a tuple.

    Args:
        values: One value per axis.
        name: Name of the values, for the message.

    Raises:
        InputError: There are not three values.
    """
    found = tuple(values)
    if len(found) != 3:
        raise InputError(f"{name} is {found}; expected three values")
    return found
