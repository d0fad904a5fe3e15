"""Submodules and LFS files: replaces what a commit only points to by the files, so that a release is complete.

A second tree is made beside the repository's own: its index and new objects are in a temporary directory, and the
repository and the submodules' caches are read as alternates. `git archive` of that tree is the whole release.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from receiver.errors import HostFault
from receiver.names import Oid
from receiver.sources.git import lfs, submodules
from receiver.sources.git.commits import Archive, Commits
from receiver.sources.git.repository import Git
from receiver.system.disk import remove_tree


def points(commits: Commits, oid: Oid) -> bool:
    """Whether a commit points to anything that is not in it."""
    tree = commits.tree(oid)
    return bool(tree.submodules() or lfs.pointers(commits, tree))


@contextmanager
def filled(commits: Commits, oid: Oid) -> Iterator[tuple[Git, Oid]]:
    """The repository and the tree-ish to archive for a commit; the commit itself if it points to nothing outside."""
    tree = commits.tree(oid)
    modules = tree.submodules()
    pointers = lfs.pointers(commits, tree)
    if not modules and not pointers:
        yield commits.git, oid
        return
    # Only builds make overlays, and a build holds the app's lock: any other overlay is left from a killed build.
    for left in commits.git.repo.glob("overlay-*"):
        remove_tree(left)
    work = Path(tempfile.mkdtemp(prefix="overlay-", dir=commits.git.repo))
    try:
        git = Git(
            commits.git.repo, {"GIT_INDEX_FILE": str(work / "index"), "GIT_OBJECT_DIRECTORY": str(work / "objects")}
        )
        (work / "objects").mkdir()
        stores = [commits.git.repo / "objects"]
        git.env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = joined(stores)
        git.run("read-tree", oid)
        if pointers:
            lfs.fill(commits, oid, pointers, git)
        for path, inner in submodules.fetched(commits, oid, modules):
            stores.append(inner.commits.git.repo / "objects")
            git.env["GIT_ALTERNATE_OBJECT_DIRECTORIES"] = joined(stores)
            # Mode 0 removes the pointer, so that a directory can replace it. (read-tree(1) would need a work tree.)
            lines = [f"0 {'0' * len(oid)}\t{path}"]
            lines += [f"{entry.mode} {entry.oid}\t{path}/{name}" for name, entry in inner.entries().items()]
            git.run(
                "update-index", "-z", "--index-info", input="\0".join([*lines, ""]).encode(errors="surrogateescape")
            )
        made = git.run("write-tree").out.strip()
        yield git, Oid(made)
    finally:
        remove_tree(work)


@contextmanager
def archived(commits: Commits, oid: Oid) -> Iterator[Archive]:
    """The tree of a commit as a tar stream, exactly as committed, with submodules and LFS files filled in.

    Raises Rejected if a submodule or LFS file cannot be fetched, HostFault if git fails.
    """
    with filled(commits, oid) as (git, tree):
        archive = Archive(git, tree)
        try:
            yield archive
        except BaseException:
            archive.abandon()
            raise
        archive.finish()


def joined(stores: list[Path]) -> str:
    """The value for GIT_ALTERNATE_OBJECT_DIRECTORIES; our own paths have no colon or quote."""
    for store in stores:
        if ":" in str(store) or '"' in str(store):
            raise HostFault(f"{store} cannot be an object store.")
    return os.pathsep.join(map(str, stores))
