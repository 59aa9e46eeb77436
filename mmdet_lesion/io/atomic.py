"""Files that appear whole or not at all, also when the process is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError

__all__ = ["atomic_write", "write_json", "read_json", "leftover_of"]

_LEFTOVER = re.compile(r"\.part-(?P<name>.+)-[^-]+")


def leftover_of(path: str | os.PathLike) -> str | None:
    """Name of the file that a killed :func:`atomic_write` was to write, or None for other files."""
    match = _LEFTOVER.fullmatch(Path(path).name)
    return match and match["name"]


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write to a temporary file beside ``path``, which replaces ``path`` at the end.

    On an exception ``path`` stays as it was and the temporary file is removed. Parent folders are
    made.

    Args:
        path: The file to write.

    Yields:
        The temporary path, with the suffix of ``path``; the file does not exist yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    temporary = path.with_name(f".part-{path.name}-{token}{path.suffix}")
    try:
        yield temporary
        # After a power cut a name without its data would pass for a complete file.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: str | os.PathLike, obj: Any, indent: int | None = None) -> None:
    """Write JSON atomically and always with the same bytes for the same content.

    Raises:
        ValueError: ``obj`` holds NaN or infinity, which JSON does not know.
    """
    separators = (",", ":") if indent is None else None
    text = json.dumps(
        obj,
        sort_keys=True,
        indent=indent,
        separators=separators,
        allow_nan=False,
        ensure_ascii=False,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: There is no such file.
        InputError: The file is no JSON, with the place where it breaks.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # Also numbers of thousands of digits, and lists nested a thousand times.
        raise InputError(f"{path} is not JSON: {error}") from None
