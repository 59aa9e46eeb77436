"""Names of scans: distinct ones for tables, and ones for files and folders."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

__all__ = ["distinct_names", "unique_names"]

# Longest name in bytes; file systems allow 255 with suffixes and temporary names.
_MAX_NAME = 120


def distinct_names(parents: Sequence[Path], names: Sequence[str]) -> list[str]:
    """Put folders in front of equal names until they differ: ``case1/image``, ``case2/image``.

    Args:
        parents: The folder of each scan.
        names: The name of each scan.

    Returns:
        A name for each scan, in the same order; equal ones only for equal folders and names.
    """
    parts = [
        (*Path(os.path.abspath(parent)).parts[1:], name) for parent, name in zip(parents, names)
    ]
    depths = [1] * len(parts)
    while True:
        groups = defaultdict(list)
        for index, (part, depth) in enumerate(zip(parts, depths)):
            groups[part[-depth:]].append(index)
        collisions = [
            index
            for group in groups.values()
            if len({parts[index] for index in group}) > 1
            for index in group
            if depths[index] < len(parts[index])
        ]
        if not collisions:
            return ["/".join(part[-depth:]) for part, depth in zip(parts, depths)]
        for index in collisions:
            depths[index] += 1


def unique_names(wanted: Sequence[str]) -> list[str]:
    """Convert names to different names of files.

    Characters other than letters, digits, ``.``, ``_`` and ``-`` are replaced. Repeated names get a
    number, such that names that need no change keep theirs. Upper and lower case count as equal.

    Args:
        wanted: Names, or paths with ``/``.

    Returns:
        A name for each, in the same order.
    """
    stems = [_file_name(name) for name in wanted]
    taken: set[str] = set()
    reserved = {stem.lower() for stem in stems}
    names = []
    for stem in stems:
        name = stem
        if name.lower() in taken:
            numbered = (f"{stem}-{number}" for number in itertools.count(2))
            name = next(n for n in numbered if n.lower() not in taken | reserved)
        taken.add(name.lower())
        names.append(name)
    return names


def _file_name(text: str) -> str:
    """Return a name that is neither hidden nor too long and contains no separators."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("_").lstrip(".") or "scan"
    if len(name.encode()) <= _MAX_NAME:
        return name
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]
    return f"{name.encode()[: _MAX_NAME - 9].decode(errors='ignore')}-{digest}"
