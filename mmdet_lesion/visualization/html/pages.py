"""Templates of HTML pages."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ...io.atomic import atomic_write

__all__ = ["template_environment", "write_page"]

_SHARED = Path(__file__).with_name("templates")


def template_environment(folder: Path) -> Environment:
    """Return the environment of the templates in a folder and of those that all pages share."""
    environment = Environment(
        loader=FileSystemLoader([folder, _SHARED]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # The keyboard shortcuts 1, 2 … follow the order of the HU windows.
    environment.policies["json.dumps_kwargs"] = dict(sort_keys=False)
    return environment


def write_page(path: str | os.PathLike, page: str) -> None:
    """Write a page atomically; undecodable characters of file names are escaped."""
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8", errors="backslashreplace")
