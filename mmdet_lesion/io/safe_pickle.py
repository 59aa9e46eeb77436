"""Reading pickles of numbers without running the code that a pickle may carry."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

__all__ = ["load_pickle"]

_RENAMED = {
    "numpy.core.multiarray": "numpy._core.multiarray",
    "numpy.core.numeric": "numpy._core.numeric",
    "__builtin__": "builtins",
}
_ALLOWED = frozenset(
    {
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        # Arrays of protocol 5, and the data of empty ones in protocol 2.
        ("numpy._core.numeric", "_frombuffer"),
        ("builtins", "bytes"),
        ("_codecs", "encode"),
    }
)
_CORE = getattr(np, "_core", None) or np.core


class _RestrictedUnpickler(pickle.Unpickler):
    """Resolves the globals that arrays of numbers need and refuses all others by name."""

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        asked, module = module, _RENAMED.get(module, module)
        if (module, name) not in _ALLOWED:
            raise InputError(
                f"{self._path} asks for {asked}.{name}, which is refused because a pickle can "
                "run code; expected only numbers, strings, lists, dicts and numpy arrays"
            )
        if module == "numpy._core.multiarray":
            return getattr(_CORE.multiarray, name)
        if module == "numpy._core.numeric":
            return getattr(_CORE.numeric, name)
        if module == "builtins":
            return _no_bytes
        if module == "_codecs":
            return _encode
        return getattr(np, name)

    def persistent_load(self, pid: Any) -> Any:
        raise InputError(
            f"{self._path} refers to an object outside the file ({pid!r}), which is refused"
        )


def _no_bytes() -> bytes:
    """``bytes`` for its one use: calling it with a number would claim memory."""
    return b""


def _encode(text: str, encoding: str = "latin1", errors: str = "strict") -> bytes:
    """``_codecs.encode`` for the one use that pickles of bytes have for it."""
    if encoding != "latin1":
        raise ValueError(f"_codecs.encode is asked for {encoding!r}; expected latin1")
    return text.encode("latin1", errors)


def _refuse_objects(value: Any, path: Path) -> None:
    pending = [value]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if id(item) in seen:
            continue
        if isinstance(item, np.ndarray | np.generic):
            if item.dtype.hasobject:
                raise InputError(f"{path} holds an array of Python objects; expected numbers")
        elif isinstance(item, dict):
            seen.add(id(item))
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list | tuple | set | frozenset):
            seen.add(id(item))
            pending.extend(item)


def load_pickle(path: str | os.PathLike) -> Any:
    """Load a pickle (of Python 2 or 3) that holds numbers, strings, containers and numpy arrays.

    Args:
        path: The pickle.

    Returns:
        What the pickle holds; Python 2 strings become ``str`` by latin1.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The pickle asks for a global that is not allowed (named in the message), holds
            an array of objects, or is truncated or broken.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a pickle")
    data = path.read_bytes()
    try:
        value = _RestrictedUnpickler(data, path).load()
    except InputError:
        raise
    # A damaged pickle can make the unpickler raise nearly anything.
    except Exception as error:
        raise InputError(
            f"{path} is truncated or broken ({type(error).__name__}: {error}); "
            "expected a complete pickle"
        ) from error
    _refuse_objects(value, path)
    return value
