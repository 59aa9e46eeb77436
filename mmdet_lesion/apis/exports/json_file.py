"""Export of ``lesions.json``, which is validated on writing and reading."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jsonschema

from ...errors import InputError
from ...io import read_json, write_json
from ...io.scans import Scan
from ..lesions import ScanResult

__all__ = ["load_schema", "read_json_file", "write_json_file"]


@cache
def load_schema() -> dict:
    """Return the JSON Schema (2020-12) of ``lesions.json``."""
    return json.loads(Path(__file__).with_name("lesions.schema.json").read_text(encoding="utf-8"))


def write_json_file(path: Path, scan: Scan, result: ScanResult) -> list[str]:
    """Write ``lesions.json``.

    Raises:
        jsonschema.ValidationError: The content does not match the schema, which is a bug.
    """
    content = result.to_dict()
    jsonschema.validate(content, load_schema())
    write_json(path, content, indent=1)
    return []


def read_json_file(path: Path) -> ScanResult | None:
    """Read a result; returns None if the file does not exist or does not match the schema."""
    try:
        content = read_json(path)
        jsonschema.validate(content, load_schema())
    except (FileNotFoundError, InputError, jsonschema.ValidationError):
        return None
    return ScanResult.from_dict(content)
