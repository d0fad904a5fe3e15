"""What `shipit pack` writes into an archive beside the project's files, and what a release says of it on arrival."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from receiver.manifest import Tree

ABOUT, SUMS = ".artifact/about.json", ".artifact/SHA256SUMS"
FORMAT = 1
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class About:
    """`commit` is the one that the files come from ("": none), `dirty` whether they differ from it."""

    name: str
    version: str
    commit: str = ""
    dirty: bool = False

    def encode(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "commit": self.commit,
            "dirty": self.dirty,
        }

    @property
    def ref(self) -> str:
        """The commit as a release names it, `+changes` when the files differ from it; "" for none."""
        return self.commit[:8] + ("+changes" if self.dirty else "") if self.commit else ""


def read(tree: Tree) -> About | None:
    """What a tree says of the artifact that it came in; None when it says nothing that is understood."""
    try:
        said = json.loads(tree.read(ABOUT) or b"")
        about = About(*(said[name] for name in ("name", "version", "commit", "dirty")))
    except (ValueError, KeyError, TypeError):
        return None
    words = (about.name, about.version, *([about.commit] if about.commit else []))
    if type(about.dirty) is bool and all(type(word) is str and _WORD.fullmatch(word) for word in words):
        return about
    return None
