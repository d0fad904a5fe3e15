"""YAML as shipit.yml uses it: mappings, lists and scalars, with line numbers, and none of YAML's surprises.

Refused: aliases and anchors (a kilobyte of them can mean gigabytes), tags, several documents, duplicate keys, keys
that are not text, deep nesting. Scalars follow YAML 1.2's core schema except that there are no fractions: `3.10` is
the text 3.10, and `no`, `on` and `12:30` are text too.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from receiver.manifest.document import Document, Path
from receiver.manifest.problems import decode, reject, shown

MAX_BYTES = 64 * 1024
MAX_DEPTH = 12

_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,14})", re.ASCII)
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class _Refused(Exception):
    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line
        self.message = message


class _Composer(yaml.SafeLoader):
    """Builds the node tree; stops at the first node that is not plain data."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _Refused(line, "Anchors and aliases (& and *) are not supported.")
        if getattr(event, "tag", None) is not None:
            raise _Refused(line, "Tags (!) are not supported.")
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Refused(line, f"This is nested more than {MAX_DEPTH} deep.")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def parse(name: str, raw: bytes) -> Document:
    """Parse one YAML document; raises Rejected with file and line. An empty file is an empty mapping."""
    text = decode(name, raw, MAX_BYTES)
    lines: dict[Path, int] = {}
    texts: dict[Path, str] = {}
    try:
        node = _Composer(text).get_single_node()
        data = {} if node is None else _value(node, (), lines, texts)
    except _Refused as refused:
        raise reject(f"{name}:{refused.line}", refused.message) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{name}:{mark.line + 1}" if mark else name
        raise reject(where, f"This is not YAML: {error.problem or error.context}.") from error
    except yaml.YAMLError as error:
        raise reject(name, f"This is not YAML: {shown(str(error).splitlines()[0])}.") from error
    return Document(name, data, lines, texts)


def _value(node: yaml.Node, path: Path, lines: dict[Path, int], texts: dict[Path, str]) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, lines, texts)
    if isinstance(node, yaml.SequenceNode):
        return [_value(item, (*path, i), lines, texts) for i, item in enumerate(node.value)]
    texts[path] = node.value
    return _scalar(node)


def _mapping(node: yaml.MappingNode, path: Path, lines: dict[Path, int], texts: dict[Path, str]) -> dict[str, Any]:
    data: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise _Refused(line, "A key must be text.")
        here: Path = (*path, key.value)
        if key.value in data:
            raise _Refused(line, f"The key {shown(key.value)} is there twice (line {lines[here]} has it too).")
        lines[here] = line
        data[key.value] = _value(value, here, lines, texts)
    return data


def _scalar(node: yaml.Node) -> str | int | bool | None:
    text: str = node.value
    if getattr(node, "style", None) is not None:
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    return int(text) if _INT.fullmatch(text) else text
