"""Atomic writes: a file is written completely or not at all, even if the process is killed."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import InputError, is_disk_full

__all__ = ["atomic_write", "leftover_of", "name_full_disk", "read_json", "write_json"]

# Bytes that do not fit on a disk on which a write has failed.
_PROBE = 1 << 20
_LEFTOVER = re.compile(r"\.part-(?P<name>.+)-[^-]+")


def leftover_of(path: str | os.PathLike) -> str | None:
    """Return the target of a temporary file of :func:`atomic_write`, or None for other files."""
    match = _LEFTOVER.fullmatch(Path(path).name)
    return match and match["name"]


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Write to a temporary file in the same folder, which replaces ``path`` at the end.

    On an exception, ``path`` is not changed and the temporary file is removed. Parent folders are
    created.

    Args:
        path: The file to write.

    Yields:
        The temporary path with the suffix of ``path``. The file does not exist yet.

    Raises:
        OSError: The disk is full; ``filename`` is ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    temporary = path.with_name(f".part-{path.name}-{token}{path.suffix}")
    try:
        with name_full_disk(path, temporary):
            yield temporary
            # Otherwise a power failure could leave a renamed file without its data.
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def name_full_disk(path: Path, temporary: Path) -> Iterator[None]:
    """Raise an OSError that names ``path`` if writing ``temporary`` fails because a disk is full.

    The exceptions of native writers, such as SimpleITK and torch, do not give the reason.

    Args:
        path: The file to name.
        temporary: The file that is written.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        full = error if is_disk_full(error) else _full_disk(temporary)
        if not isinstance(full, OSError):
            raise
        raise OSError(full.errno, full.strerror, str(path)) from error


def _full_disk(path: Path) -> OSError | None:
    """Return the error of appending to a file whose writer failed, if the disk is full."""
    try:
        with open(path, "ab") as file:
            file.write(bytes(_PROBE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return error if is_disk_full(error) else None
    return None


def write_json(path: str | os.PathLike, obj: Any, indent: int | None = None) -> None:
    """Write JSON atomically; the same content always gives the same bytes.

    Raises:
        ValueError: ``obj`` contains NaN or infinity, which JSON does not support.
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
        # Undecodable names of files contain surrogates, for which JSON has an escape sequence.
        temporary.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def read_json(path: str | os.PathLike) -> Any:
    """Read JSON.

    Raises:
        FileNotFoundError: The file does not exist.
        InputError: The file is not valid JSON; the message gives the position.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist; expected a JSON file")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        # Includes numbers with thousands of digits and lists with a thousand levels.
        raise InputError(f"{path} is not JSON: {error}") from None
