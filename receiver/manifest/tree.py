"""The files that a manifest is read from: of a commit, or of a directory on the developer's machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

MAX_READ = 2**20
MAX_HOPS = 16  # how many links in a row are followed


class Tree(Protocol):
    """Read-only access to regular files, and to links that lead to a file of the same tree. No other link is
    followed."""

    def files(self) -> Mapping[str, str]:
        """Path (with `/`, relative) to blob id: equal ids mean equal contents within one kind of tree."""

    def read(self, path: str) -> bytes | None:
        """The content of a file of at most 1 MiB (`MAX_READ`); None if it is absent, larger, or not in `files`."""

    def links(self) -> Mapping[str, str]:
        """Each link → the path in this tree where it finally leads; "" if that is not in the tree."""


def lead(path: str, target: Callable[[str], str | None]) -> str:
    """Where `path` leads if links are followed; `target` returns the content of a link (None: no link). "" if that is
    outside, or does not exist."""
    todo, done, hops = path.split("/"), list[str](), 0
    while todo:
        part = todo.pop(0)
        if part in ("", "."):
            continue
        if part == "..":
            if not done:
                return ""
            done.pop()
            continue
        done.append(part)
        to = target("/".join(done))
        if to is None:
            continue
        hops += 1
        if hops > MAX_HOPS or not to or to.startswith("/"):
            return ""
        done.pop()
        todo = [*to.split("/"), *todo]
    return "/".join(done)


class Subtree:
    """A directory of a tree as a tree of its own: for the app of a monorepo."""

    def __init__(self, tree: Tree, root: str) -> None:
        self._tree = tree
        self._prefix = root + "/"
        self._files: dict[str, str] | None = None

    def files(self) -> Mapping[str, str]:
        if self._files is None:
            start = len(self._prefix)
            files = self._tree.files().items()
            links = self.links()
            own = {path[start:]: blob for path, blob in files if path.startswith(self._prefix)}
            # Only this directory is unpacked, so a link that leads out of it leads nowhere.
            self._files = {path: blob for path, blob in own.items() if links.get(path) != ""}
        return self._files

    def read(self, path: str) -> bytes | None:
        return self._tree.read(self._prefix + path) if self.links().get(path) != "" else None

    def links(self) -> Mapping[str, str]:
        start = len(self._prefix)
        return {
            path[start:]: to[start:] if to.startswith(self._prefix) else ""
            for path, to in self._tree.links().items()
            if path.startswith(self._prefix)
        }


def subtree(tree: Tree, root: str) -> Tree:
    """The tree below `root`, or the whole tree if `root` is empty."""
    return Subtree(tree, root) if root else tree
