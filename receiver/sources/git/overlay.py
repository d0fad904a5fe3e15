"""Submodules and LFS files: what a commit only points at, filled in, so that a release is whole.

A second tree is made beside the repository's own: its index and new objects live in a temporary directory, the
repository and the submodules' caches are read as alternates. `git archive` of that tree is then the whole release.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from receiver.errors import HostFault
from receiver.names import Oid
from receiver.sources.git import lfs, submodules
from receiver.sources.git.repository import Git
from receiver.system.disk import remove_tree

if TYPE_CHECKING:
    from receiver.sources.git.source import GitSource


@contextmanager
def filled(source: GitSource, oid: Oid) -> Iterator[tuple[Git, Oid]]:
    """The repository and the tree-ish to archive for a commit; the commit itself when it points at nothing."""
    tree = source.tree(oid)
    modules = tree.submodules()
    pointers = lfs.pointers(source, tree)
    if not modules and not pointers:
        yield source.git, oid
        return
    # Only a build makes overlays, and it has the app's lock: others are of builds that were killed.
    for left in source.git.repo.glob("overlay-*"):
        remove_tree(left)
    work = Path(tempfile.mkdtemp(prefix="overlay-", dir=source.git.repo))
    try:
        git = Git(
            source.git.repo, {"GIT_INDEX_FILE": str(work / "index"), "GIT_OBJECT_DIRECTORY": str(work / "objects")}
        )
        (work / "objects").mkdir()
        stores = [source.git.repo / "objects"]
        git.env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = joined(stores)
        git.run("read-tree", oid)
        if pointers:
            lfs.fill(source, oid, pointers, git)
        for path, inner in submodules.fetched(source, oid, modules):
            stores.append(inner.source.git.repo / "objects")
            git.env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = joined(stores)
            # Mode 0 removes the pointer, so that a directory can take its place. read-tree(1) would want a work tree.
            lines = [f"0 {'0' * len(oid)}\t{path}"]
            lines += [f"{entry.mode} {entry.oid}\t{path}/{name}" for name, entry in inner.entries().items()]
            git.run(
                "update-index", "-z", "--index-info", input="\0".join([*lines, ""]).encode(errors="surrogateescape")
            )
        made = git.run("write-tree").out.strip()
        yield git, Oid(made)
    finally:
        remove_tree(work)


def joined(stores: list[Path]) -> str:
    """As GIT_ALTERNATE_OBJECT_DIRECTORIES wants it; our own paths hold no colon or quote."""
    for store in stores:
        if ":" in str(store) or '"' in str(store):
            raise HostFault(f"{store} cannot be an object store.")
    return os.pathsep.join(map(str, stores))
