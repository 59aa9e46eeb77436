"""Validation of JSON files against a schema, with errors that name file, entry and key."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import InputError
from .atomic import read_json

__all__ = ["objects", "read_schema", "read_validated_json"]

_NAMES = {"array": "a list", "object": "an object", "string": "a string", "integer": "an integer",
          "number": "a number", "boolean": "true or false", "null": "null"}  # fmt: skip
_CONTAINERS: dict[type, str] = {list: "a list", dict: "an object"}


def objects(*required: str, min_items: int = 0, **properties: dict) -> dict[str, Any]:
    """Return the schema of a list of objects.

    Args:
        *required: Required keys of each object.
        min_items: Minimum number of objects.
        **properties: Schema of each key.
    """
    items = {"type": "object", "required": list(required), "properties": properties}
    return {"type": "array", "minItems": min_items, "items": items}


@cache
def read_schema(name: str) -> dict[str, Any]:
    """Read ``{name}.schema.json`` of this package, in which every key has a description."""
    return read_json(Path(__file__).with_name(f"{name}.schema.json"))


def read_validated_json(path: str | os.PathLike, schema: dict[str, Any], hint: str = "") -> Any:
    """Read a JSON file and validate it.

    Args:
        path: The file.
        schema: JSON schema (draft 2020-12).
        hint: How to create a valid file, for the message if the file is missing or has another
            content.

    Returns:
        The content.

    Raises:
        FileNotFoundError: The file does not exist, and ``hint`` is empty.
        InputError: The file is not valid JSON, or does not match the schema. The message names the
            first invalid entry, with found and expected content.
    """
    import jsonschema

    if hint and not Path(path).is_file():
        raise InputError(f"{path} does not exist; {hint}")
    content = read_json(path)
    error = next(jsonschema.Draft202012Validator(schema).iter_errors(content), None)
    if error is not None:
        raise InputError(_message(path, error, hint))
    return content


def _message(path: str | os.PathLike, error: Any, hint: str) -> str:
    where = "".join(f"[{k}]" if isinstance(k, int) else f".{k}" for k in error.absolute_path)
    where = f"{path}: {where.lstrip('.')}" if where else f"{path}"
    found, expected = error.instance, error.validator_value
    match error.validator:
        case "required":
            missing = next(key for key in expected if key not in found)
            keys = f"expected the keys {', '.join(expected)}"
            at_top = hint and not error.absolute_path
            return f"{where} has no key '{missing}'; {hint if at_top else keys}"
        case "type":
            kinds = [expected] if isinstance(expected, str) else expected
            what = _CONTAINERS.get(type(found), repr(found))
            return f"{where} is {what}; expected {' or '.join(_NAMES[kind] for kind in kinds)}"
        case "enum":
            return f"{where} is {found!r}; expected one of {', '.join(map(str, expected))}"
        case "minItems" | "maxItems":
            if not found:
                return f"{where} is empty; expected one entry or more"
            return f"{where} is {found!r}; expected {expected} entries"
        case _:
            return f"{where}: {error.message}"
