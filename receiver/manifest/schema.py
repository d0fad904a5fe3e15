"""Checks shipit.yml against its published JSON Schema (2020-12); mistakes are described in words, with their line.

Slow to import (jsonschema: 70 ms), so only imported when there is a shipit.yml.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema

from receiver.manifest.document import Document
from receiver.manifest.problems import Problems, nearest, shown
from receiver.manifest.section import Section

FILE = Path(__file__).parent / "shipit.schema.json"

_TYPES = {
    "object": "a mapping of keys", "array": "a list", "string": "text", "integer": "a whole number",
    "boolean": "true or false", "number": "a number", "null": "empty",
}  # fmt: skip


def load(sections: Sequence[Section] = ()) -> Any:
    """The schema as data, with a key at the top for each of `sections`."""
    schema = json.loads(FILE.read_text())
    schema["properties"] |= {section.key: section.schema for section in sections}
    return schema


def is_version(key: str) -> bool:
    """Whether a key of shipit.yml is a runtime's name, and so its value a version."""
    return bool(_properties().get(key, {}).get("x-version"))


@cache
def _properties() -> dict[str, Any]:
    known: dict[str, Any] = load()["properties"]
    return known


def check(document: Document, problems: Problems, sections: Sequence[Section] = ()) -> None:
    """Add everything in the document that the schema forbids to `problems`."""
    validator = jsonschema.Draft202012Validator(load(sections))
    for error in sorted(validator.iter_errors(document.data), key=lambda e: [str(part) for part in e.absolute_path]):
        path = tuple(error.absolute_path)
        if error.validator == "additionalProperties":
            _unknown(document, path, error.schema, error.instance, problems)
            continue
        problems.add(document.at(path), f"{_dotted(path)} {_told(error)}.")


def _unknown(document: Document, path: tuple[Any, ...], schema: Any, instance: Any, problems: Problems) -> None:
    known = schema["properties"]
    for key in instance:
        if key not in known and not key.startswith("x-"):
            inside = f" in {_dotted(path)}" if path else ""
            message = f"unknown key {shown(key)}{inside}.{nearest(key, known)}"
            problems.add(document.at((*path, key)), message, f"Known keys{inside}: {', '.join(known)}")


def _told(error: Any) -> str:
    own = error.schema.get("x-message")
    kind, wanted = error.validator, error.validator_value
    if own:
        return str(own)
    if kind == "type":
        return f"must be {_TYPES[wanted]}" if isinstance(wanted, str) else "has the wrong type"
    if kind == "enum":
        return "must be one of " + ", ".join(map(str, wanted))
    if kind in ("minimum", "maximum"):
        low, high = error.schema.get("minimum"), error.schema.get("maximum")
        return f"must be between {low} and {high}"
    if kind in ("minLength", "maxLength", "maxItems", "maxProperties"):
        return f"is too {'short' if kind.startswith('min') else 'long'}"
    if kind == "uniqueItems":
        return "has the same item twice"
    if kind == "dependentRequired":
        return "has status or content, which belong to a path; add path"
    return f"is not allowed here ({kind})"


def _dotted(path: tuple[Any, ...]) -> str:
    return ".".join(str(part) for part in path) if path else "The file"
