"""The description that `shipit pack` adds to an archive, and that a release records when the archive arrives."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from receiver.manifest import Tree

ABOUT, SUMS = ".artifact/about.json", ".artifact/SHA256SUMS"
FORMAT = 1
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+~-]{0,63}", re.ASCII)
_DESCRIBED = re.compile(r"v?([0-9][A-Za-z0-9.]*)-([0-9]+)-g([0-9a-f]+)", re.ASCII)


@dataclass(frozen=True)
class About:
    """`commit` is the one that the files come from ("": none), `dirty` whether they differ from it, `when` the date of
    every file (0: not known)."""

    name: str
    version: str
    commit: str = ""
    dirty: bool = False
    when: int = 0

    def encode(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "name": self.name,
            "version": self.version,
            "commit": self.commit,
            "dirty": self.dirty,
            "date": self.when,
        }

    @property
    def ref(self) -> str:
        """The commit as a release names it, with `+changes` if the files differ from it; "" for none."""
        return self.commit[:8] + ("+changes" if self.dirty else "") if self.commit else ""


def read(tree: Tree) -> About | None:
    """The description in a tree; None if there is none that is understood."""
    try:
        said = json.loads(tree.read(ABOUT) or b"")
        about = About(said["name"], said["version"], said["commit"], said["dirty"], said.get("date", 0))
    except (ValueError, KeyError, TypeError):
        return None
    words = (about.name, about.version, *([about.commit] if about.commit else []))
    known = type(about.dirty) is bool and type(about.when) is int and 0 <= about.when < 2**33
    if known and all(type(word) is str and _WORD.fullmatch(word) for word in words):
        return about
    return None


def is_word(text: str) -> bool:
    """Whether it can be a name or a version of an artifact."""
    return _WORD.fullmatch(text) is not None


def named(project: str) -> str:
    """The name of an artifact from the project's name; "" if it has none."""
    return re.sub(r"[-_.]+", "-", project).lower()


def versioned(described: str, commit: str, *, dirty: bool = False) -> str:
    """The version from `git describe --long`: v1.2 gives 1.2; three commits later 1.2+3.gab12cd3; uncommitted changes
    add `.dirty`; without a tag 0.0.0+gab12cd3."""
    match = _DESCRIBED.fullmatch(described)
    version, more = "0.0.0", f"g{commit[:7]}" if commit else ""
    if match:
        version, more = match[1], f"{match[2]}.g{match[3][:7]}" if match[2] != "0" else ""
    more = ".".join(filter(None, [more, "dirty" if dirty else ""]))
    return f"{version}+{more}" if more else version
