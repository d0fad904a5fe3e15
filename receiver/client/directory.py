"""A directory on the developer's machine as the tree that a push would bring."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from receiver.errors import HostFault, NotFound
from receiver.manifest import MAX_READ
from receiver.manifest.tree import lead
from receiver.system.run import run

_SKIPPED = frozenset({".git", "node_modules", "__pycache__"})


class Directory:
    """`receiver.manifest.Tree` of a directory: the files that git would commit, or all files if there is no git.

    `paths` are all files and links, `uncommitted` the files that git does not know yet: a push would not send them.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise NotFound(f"{root} is not a directory.")
        self._root = root
        self.uncommitted: frozenset[str] = frozenset()
        self.paths = frozenset(self._known_to_git() or self._walk(""))
        self._files: dict[str, str] | None = None
        self._links: dict[str, str] | None = None

    def files(self) -> Mapping[str, str]:
        if self._files is None:
            links = self.links()
            self._files = {path: "" for path in sorted(self.paths) if self._is_regular(links.get(path, path))}
            for path in self._files:
                self._files[path] = hashlib.sha256(self.read(path) or b"").hexdigest()
        return self._files

    def links(self) -> Mapping[str, str]:
        if self._links is None:
            found = {path for path in self.paths if (self._root / path).is_symlink()}
            ways = {
                path: lead(path, lambda p: str((self._root / p).readlink()) if p in found else None) for path in found
            }
            self._links = {path: to if to and (self._root / to).exists() else "" for path, to in ways.items()}
        return self._links

    def read(self, path: str) -> bytes | None:
        path = self.links().get(path, path)
        if path not in self.paths or not self._is_regular(path):
            return None
        descriptor = os.open(self._root / path, os.O_RDONLY | os.O_NOFOLLOW)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - Path.open cannot refuse a link
            content = file.read(MAX_READ + 1)
        return content if len(content) <= MAX_READ else None

    def _is_regular(self, path: str) -> bool:
        try:
            return stat.S_ISREG((self._root / path).lstat().st_mode)
        except OSError:
            return False

    def _known_to_git(self) -> list[str]:
        """Tracked files and untracked ones that are not ignored; [] outside a repository and without git."""
        environment = {**os.environ, "LC_ALL": "C"}

        def listed(*which: str) -> list[str]:
            argv = ["git", "ls-files", "-z", "--exclude-standard", *which]
            return [path for path in run(argv, cwd=self._root, env=environment).out.split("\0") if path]

        try:
            tracked, new = listed("--cached"), listed("--others")
        except HostFault:
            return []
        self.uncommitted = frozenset(new)
        return sorted({*tracked, *new})

    def _walk(self, below: str) -> Iterator[str]:
        with os.scandir(self._root / below) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = f"{below}{entry.name}"
                if not entry.is_dir(follow_symlinks=False):
                    yield path
                elif entry.name not in _SKIPPED and not (Path(entry.path) / "pyvenv.cfg").exists():
                    yield from self._walk(path + "/")
