"""JSON with the line of every part. Comments and trailing commas are no mistake: Dokku reads app.json as HuJSON."""

from __future__ import annotations

import json
import re
from typing import Any

from receiver.manifest.document import Document, Path
from receiver.manifest.problems import decode, reject, shown

MAX_BYTES = 256 * 1024
MAX_DEPTH = 32

# A string, a comment (an unclosed one goes on to the end), or one other character.
_PIECE = re.compile(r'"(?:[^"\\\n]|\\.)*"|//[^\n]*|/\*(?s:.*?)(?:\*/|\Z)|\S')
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s{}\[\],:"]+')


class _Twice(ValueError):
    pass


def parse(name: str, raw: bytes) -> Document:
    """Parse a JSON file; raises Rejected with file and line, also for a key that is there twice."""
    text = _plain(decode(name, raw, MAX_BYTES))
    try:
        data = json.loads(text, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        raise reject(f"{name}:{error.lineno}", f"This is not JSON: {error.msg}.") from error
    except _Twice as error:
        raise reject(name, f"The key {error} is there twice.") from error
    except (RecursionError, ValueError) as error:
        raise reject(name, "This JSON is nested too deep or holds a number that is too long.") from error
    return Document(name, data, _lines(name, text), {})


def _plain(text: str) -> str:
    """The text with blanks in place of comments and trailing commas, so that every line stays where it is."""
    blanks: list[tuple[int, int]] = []
    comma: tuple[int, int] | None = None
    for piece in _PIECE.finditer(text):
        if piece[0].startswith(("//", "/*")):
            blanks.append(piece.span())
            continue
        if comma and piece[0] in "]}":
            blanks.append(comma)
        comma = piece.span() if piece[0] == "," else None
    done, parts = 0, []
    for start, end in sorted(blanks):
        parts += [text[done:start], re.sub(r"[^\n]", " ", text[start:end])]
        done = end
    return "".join([*parts, text[done:]])


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    data = dict(pairs)
    if len(data) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _Twice(shown(key))
            seen.add(key)
    return data


def _lines(name: str, text: str) -> dict[Path, int]:
    """The line of every key and item of `text`, which is known to be JSON."""
    lines: dict[Path, int] = {(): 1}
    path: list[str | int] = []
    line, seen, key = 1, 0, True
    for match in _TOKEN.finditer(text):
        line += text.count("\n", seen, match.start())
        seen, token = match.start(), match[0]
        if token in "{[":
            lines.setdefault(tuple(path), line)
            path.append(0 if token == "[" else "")
            # Each part of the document is stored with its whole path, so the depth is limited.
            if len(path) > MAX_DEPTH:
                raise reject(f"{name}:{line}", f"This is nested more than {MAX_DEPTH} deep.")
            key = token == "{"
        elif token in "}]":
            path.pop()
        elif token == ",":
            last = path[-1]
            key = isinstance(last, str)
            if not isinstance(last, str):
                path[-1] = last + 1
        elif token == ":":
            key = False
        elif key and path and isinstance(path[-1], str):
            path[-1] = json.loads(token)
            lines[tuple(path)] = line
        else:
            lines.setdefault(tuple(path), line)
    return lines
