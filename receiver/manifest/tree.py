"""What a manifest is read from: the files of a commit, or of a directory on the developer's machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

MAX_READ = 2**20


class Tree(Protocol):
    """Read-only, regular files only; links are never followed."""

    def files(self) -> Mapping[str, str]:
        """Path (with `/`, relative) to blob id: equal ids mean equal contents within one kind of tree."""

    def read(self, path: str) -> bytes | None:
        """The content of a file of at most 1 MiB (`MAX_READ`); None if it is absent, larger, or not a regular file."""


class Subtree:
    """A directory of a tree as a tree of its own: the app of a monorepo."""

    def __init__(self, tree: Tree, root: str) -> None:
        self._tree = tree
        self._prefix = root + "/"
        self._files: dict[str, str] | None = None

    def files(self) -> Mapping[str, str]:
        if self._files is None:
            start = len(self._prefix)
            files = self._tree.files().items()
            self._files = {path[start:]: blob for path, blob in files if path.startswith(self._prefix)}
        return self._files

    def read(self, path: str) -> bytes | None:
        return self._tree.read(self._prefix + path)


def subtree(tree: Tree, root: str) -> Tree:
    """The tree below `root`, or the tree itself when `root` is empty."""
    return Subtree(tree, root) if root else tree
