"""Loading of pickles without execution of the code that they may contain."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["load_pickle"]


def _no_bytes() -> bytes:
    """Replace ``bytes``, which would allocate memory if called with a number."""
    return b""


def _encode(text: str, encoding: str = "latin1", errors: str = "strict") -> bytes:
    """Replace ``_codecs.encode``, which pickles of bytes call only with latin1."""
    if encoding != "latin1":
        raise ValueError(f"the encoding is {encoding!r}; expected latin1")
    return text.encode("latin1", errors)


_CORE = getattr(np, "_core", None) or np.core
_RENAMED = {
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "__builtin__": "builtins",
}
_ALLOWED = {
    ("numpy._core.multiarray", "scalar"): _CORE.multiarray.scalar,
    ("numpy._core.multiarray", "_reconstruct"): _CORE.multiarray._reconstruct,
    ("numpy", "dtype"): np.dtype,
    ("numpy", "ndarray"): np.ndarray,
    # Arrays in protocol 5, and the data of empty ones in protocol 2.
    ("numpy._core.numeric", "_frombuffer"): _CORE.numeric._frombuffer,
    ("builtins", "bytes"): _no_bytes,
    ("_codecs", "encode"): _encode,
}


class _RestrictedUnpickler(pickle.Unpickler):
    """Unpickler that resolves only the globals that arrays of numbers need."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((_RENAMED.get(module, module), name))
        if found is None:
            raise InputError(
                f"{self._path} refers to {module}.{name}, which could run code; expected only "
                "numbers, strings, lists, dicts and numpy arrays"
            )
        return found

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(
            f"{self._path} refers to an object outside the file ({pid!r}); expected none"
        )


def _reject_objects(value: Any, path: Path) -> None:
    pending = [value]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        if isinstance(item, np.ndarray | np.generic):
            if item.dtype.hasobject:
                raise InputError(f"{path} contains an array of Python objects; expected numbers")
        elif isinstance(item, dict):
            seen.add(id(item))
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            seen.add(id(item))
            pending.extend(item)


def load_pickle(path: str | os.PathLike) -> Any:
    """Load a pickle (Python 2 or 3) of numbers, strings, containers and numpy arrays.

    Args:
        path: The pickle.

    Returns:
        The content; Python 2 strings are decoded as latin1.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The pickle refers to a global that is not allowed (named in the message),
            contains an array of objects, or is truncated or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a pickle")
    data = path.read_bytes()
    try:
        value = _RestrictedUnpickler(data, path).load()
    except InputError:
        raise
    # The unpickler can raise nearly any exception for a damaged pickle.
    except Exception as error:
        raise InputError(
            f"{path} is truncated or broken ({type(error).__name__}: {error}); "
            "expected a complete pickle"
        ) from error
    _reject_objects(value, path)
    return value
