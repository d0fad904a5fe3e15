"""What is known of a package (a wheel, a deb, an rpm) without unpacking it; how such a file lies in a tree.

A package that was sent lies at the top of the tree by its own name, and what a build or a reader wants to know of it
lies beside it, below `.package/NAME/`, as text: so two releases can be compared, and a large package is not opened again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from receiver.manifest import Tree

BESIDE = ".package"
# Bytes of one text beside a package.
LONGEST = 2**18
ENDINGS = (".whl", ".deb", ".rpm")


@dataclass(frozen=True)
class Packed:
    """`file` is what the package is called by its own content, `name` what all versions of it are called; `beside` are
    the texts that lie beside it."""

    name: str
    file: str
    beside: Mapping[str, bytes] = field(default_factory=dict)


def beside(tree: Tree, file: str) -> Mapping[str, bytes]:
    """The texts that lie beside a package in a tree; {} when none do."""
    top = f"{BESIDE}/{file}/"
    found = {path[len(top) :]: tree.read(path) for path in tree.files() if path.startswith(top)}
    return {path: raw for path, raw in found.items() if raw is not None}


def at_top(tree: Tree, ending: str) -> list[str]:
    """The packages of a kind that lie at the top of a tree."""
    return sorted(path for path in tree.files() if "/" not in path and path.endswith(ending))


def called(file: str) -> str:
    """What all versions of a package are called, by the name of its file."""
    name = (
        file.rsplit("-", 2)[0] if file.endswith(".rpm") else re.split("[-_]" if file.endswith(".whl") else "_", file)[0]
    )
    return name.lower()
