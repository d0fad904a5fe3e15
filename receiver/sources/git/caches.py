"""What is cached of an app beside its repository: LFS objects and submodules. They can be fetched again, so the least
recently used are removed first."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from receiver.system import disk

_OBJECT = re.compile(r"[0-9a-f]{64}")


def lfs_object(repo: Path, oid: str) -> Path:
    """Where git-lfs keeps an object for this repository."""
    return repo / "lfs/objects" / oid[:2] / oid[2:4] / oid


def submodules(repo: Path) -> Path:
    """The directory of the submodules' repositories."""
    return repo / "modules"


def used(path: Path) -> None:
    """Note that an object, or a submodule's HEAD, is used now; it may be missing."""
    with suppress(FileNotFoundError):
        os.utime(path)


def trim(repo: Path, limit: int) -> int:
    """Remove the least recently used until all together take at most `limit` bytes; returns how many were removed.

    The caller holds the app's lock, because builds read these.
    """
    found = sorted(_entries(repo))
    whole = sum(size for _, size, _ in found)
    removed = 0
    for _, size, path in found:
        if whole <= limit:
            break
        disk.remove_tree(path)
        whole -= size
        removed += 1
    return removed


def _entries(repo: Path) -> Iterator[tuple[float, int, Path]]:
    """(last use, bytes on disk, path) of each cached item."""
    for path in (repo / "lfs/objects").glob("*/*/*"):
        if _OBJECT.fullmatch(path.name):
            known = path.lstat()
            yield known.st_mtime, known.st_blocks * 512, path
    for head in submodules(repo).glob("*.git/HEAD"):
        size = sum(path.lstat().st_blocks * 512 for path in head.parent.rglob("*"))
        yield head.lstat().st_mtime, size, head.parent
