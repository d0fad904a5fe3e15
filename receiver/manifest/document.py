"""A parsed file with the line of every part of it, so that a message can point there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Document:
    """`data` is plain JSON-like data; `lines` counts from 1; `texts` holds scalars as they were written."""

    name: str
    data: Any
    lines: Mapping[Path, int]
    texts: Mapping[Path, str]

    def at(self, path: Path) -> str:
        """`shipit.yml:7` for the part at `path`, or for the nearest part around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"
