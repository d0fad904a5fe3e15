"""Packages (a wheel, a deb, an rpm): what is known of one without unpacking it, and how it is stored in a tree.

A package that was sent is at the top of the tree under its own name. Its metadata is stored beside it as text, below
`.package/NAME/`. So two releases can be compared, and a large package need not be opened again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from receiver.manifest import Tree

BESIDE = ".package"
# The most bytes of one text beside a package.
LONGEST = 2**18
ENDINGS = (".whl", ".deb", ".rpm")


@dataclass(frozen=True)
class Packed:
    """`file` is the file name that follows from the package's content, `name` is common to all its versions; `beside`
    are the texts to store beside it."""

    name: str
    file: str
    beside: Mapping[str, bytes] = field(default_factory=dict)


def beside(tree: Tree, file: str) -> Mapping[str, bytes]:
    """The texts beside a package in a tree; {} if there are none."""
    top = f"{BESIDE}/{file}/"
    found = {path[len(top) :]: tree.read(path) for path in tree.files() if path.startswith(top)}
    return {path: raw for path, raw in found.items() if raw is not None}


def at_top(tree: Tree, ending: str) -> list[str]:
    """The packages of one kind at the top of a tree."""
    return sorted(path for path in tree.files() if "/" not in path and path.endswith(ending))


def called(file: str) -> str:
    """The name that all versions of a package share, from its file's name."""
    name = (
        file.rsplit("-", 2)[0] if file.endswith(".rpm") else re.split("[-_]" if file.endswith(".whl") else "_", file)[0]
    )
    return name.lower()
