"""What a source is: one way in which files arrive. Each is a module or folder here, and one row of sources/all.py.

What arrives as files becomes a commit in the app's own repository, so one base, `Stored`, does all but the arriving.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from receiver.errors import Rejected
from receiver.manifest import Tree
from receiver.model import Origin, Release
from receiver.names import Oid
from receiver.paths import AppPaths
from receiver.sources.git.commits import Commits


class Stream(Protocol):
    """All files of an origin as a tar stream; whoever gets the descriptor reads it to its end."""

    def fileno(self) -> int: ...


class Source(Protocol):
    """The releases of one app that came in by this way."""

    @property
    def kind(self) -> str: ...

    def tree(self, origin: Origin) -> Tree:
        """Its files, to look at."""

    def open(self, origin: Origin) -> AbstractContextManager[Stream]:
        """Its files, to build; again and again for as long as they are kept.

        Raises Rejected when something that they only point at cannot be had.
        """

    def keep(self, number: int, origin: Origin) -> None:
        """Keep what release `number` came from, whatever else becomes of it."""

    def forget(self, number: int) -> None:
        """Release `number` was pruned. Nothing happens if nothing was kept for it."""

    def follow(self, live: Release) -> str:
        """Make what people see of the source agree with the live release; what was done, "" if nothing.

        Whatever belongs to another source is left alone.
        """

    def astray(self, live: Release) -> str:
        """What `follow` would do, "" if nothing."""

    def changes(self, now: Origin, then: Origin, limit: int) -> list[tuple[str, str]]:
        """(short id, title) of what is in `now` and not in `then`, newest first, `limit` at most."""


class Stored:
    """Of every source whose files are a commit in the app's repository."""

    kind = ""

    def __init__(self, paths: AppPaths) -> None:
        self.paths = paths
        self.commits = Commits(paths.repo)

    def tree(self, origin: Origin) -> Tree:
        return self.commits.tree(commit_of(origin))

    @contextmanager
    def open(self, origin: Origin) -> Iterator[Stream]:
        # Reading what is only pointed at is slow to import, and only a build needs it.
        from receiver.sources.git.overlay import archived

        with archived(self.commits, commit_of(origin)) as stream:
            yield stream

    def keep(self, number: int, origin: Origin) -> None:
        self.commits.git.pin(number, commit_of(origin))

    def forget(self, number: int) -> None:
        self.commits.git.unpin(number)

    def follow(self, live: Release) -> str:
        return ""

    def astray(self, live: Release) -> str:
        return ""

    def changes(self, now: Origin, then: Origin, limit: int) -> list[tuple[str, str]]:
        found = self.commits.history(commit_of(now), then.commit, limit)
        return [(commit.oid[:8], commit.subject) for commit in found]


def commit_of(origin: Origin) -> Oid:
    """Raises Rejected for an origin that is no tree."""
    if origin.commit is None:
        raise Rejected(f"{origin.kind} {origin.short} is no tree of files.")
    return origin.commit
