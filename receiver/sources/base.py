"""What a source is: one way in which files arrive. Each is a module or folder here, and one row of sources/all.py.

Files that arrive become a commit in the app's own repository; the base class `Stored` does everything after that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import IO, NamedTuple, Protocol, runtime_checkable

from receiver.errors import Busy, Rejected
from receiver.manifest import Tree
from receiver.model import Origin, Release
from receiver.names import Oid
from receiver.paths import AppPaths
from receiver.sources.git.commits import Commits, Entry
from receiver.sources.git.receive import Check
from receiver.sources.limits import Limits
from receiver.system import disk


class Stream(Protocol):
    """All files of an origin as a tar stream; the reader of the descriptor reads it to its end."""

    def fileno(self) -> int: ...


class Base(NamedTuple):
    """The commit of the project's history that files come from ("": none), whether they differ from it, its date, and
    its place relative to the tags (`git describe --long`)."""

    commit: str
    dirty: bool
    when: int
    described: str


class Source(Protocol):
    """The releases of one app that came in this way."""

    @property
    def kind(self) -> str: ...

    def tree(self, origin: Origin) -> Tree:
        """The files, for reading the manifest."""

    def open(self, origin: Origin) -> AbstractContextManager[Stream]:
        """The files, for a build; possible for as long as they are kept.

        Raises Rejected if something that they only point to (a submodule, an LFS file) cannot be fetched.
        """

    def has(self, origin: Origin) -> bool:
        """Whether its files are still kept."""

    def listed(self, origin: Origin) -> Mapping[str, Entry]:
        """Every file, link and submodule, by path."""

    def reopen(self, origin: Origin) -> AbstractContextManager[Stream]:
        """As `open`, without the app's lock. Raises Busy if that lock is needed and another process has it."""

    def base(self, origin: Origin) -> Base:
        """What an artifact of these files says about the commit they come from."""

    def described(self, origin: Origin) -> str:
        """Its place relative to the tags: `TAG-COUNT-gCOMMIT`, `COUNT-gCOMMIT` without a tag, "" if this source has no
        tags."""

    def keep(self, number: int, origin: Origin) -> None:
        """Keep the files of release `number`, even if everything else that names them is removed."""

    def forget(self, number: int) -> None:
        """Release `number` was pruned: stop keeping its files. No effect if nothing was kept for it."""

    def follow(self, live: Release) -> str:
        """Make what users see of the source (the deploy branch) agree with the live release; returns what was done, ""
        if nothing. Does not touch what belongs to another source.
        """

    def astray(self, live: Release) -> str:
        """What `follow` would change, "" if nothing."""

    def changes(self, now: Origin, then: Origin, limit: int) -> list[tuple[str, str]]:
        """(short id, title) of the commits that are in `now` and not in `then`, newest first, at most `limit`."""


@runtime_checkable
class Sent(Protocol):
    """A source whose files come on standard input, to `shipit deploy APP -`; the first one in the table that `takes`
    them gets them."""

    def takes(self, file: IO[bytes]) -> bool:
        """Whether the file's content is of this source's kind. The file is at its beginning, before and after."""

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        """Make a commit of the file; returns its origin, and lines for the sender.

        The caller has the app's turn. `file` is complete, `said` is the kind that the sender named, `parent` the live
        commit. `check` looks at the commit before the app's repository gets it, and raises what is wrong with it.
        Raises Rejected, with nothing kept, for a file that is damaged, beyond the limits, or no tree of an app.
        """


class Stored:
    """Base of all sources: the files are a commit in the app's repository."""

    kind = ""

    def __init__(self, paths: AppPaths) -> None:
        self.paths = paths
        self.commits = Commits(paths.repo)

    def tree(self, origin: Origin) -> Tree:
        return self.commits.tree(commit_of(origin))

    @contextmanager
    def open(self, origin: Origin) -> Iterator[Stream]:
        # Importing submodules and LFS is slow, and only a build needs it.
        from receiver.sources.git.overlay import archived

        with archived(self.commits, commit_of(origin)) as stream:
            yield stream

    @contextmanager
    def reopen(self, origin: Origin) -> Iterator[Stream]:
        from receiver.sources.git.overlay import points

        # Submodules and LFS files are put together in a directory that a build of the same app would remove.
        alone = (
            disk.locked(self.paths.app_lock, wait=False) if points(self.commits, commit_of(origin)) else nullcontext()
        )
        with ExitStack() as stack:
            try:
                stack.enter_context(alone)
            except BlockingIOError:
                raise Busy(f"{self.paths.name} is being deployed.", hint="Ask again when that is over.") from None
            yield stack.enter_context(self.open(origin))

    def listed(self, origin: Origin) -> Mapping[str, Entry]:
        return self.commits.tree(commit_of(origin)).entries()

    def base(self, origin: Origin) -> Base:
        # The commit is shipit's own, and part of no project's history.
        return Base("", False, self.commits.commit(commit_of(origin)).when, "")

    def has(self, origin: Origin) -> bool:
        return self.commits.git.commit_of(commit_of(origin)) is not None

    def described(self, origin: Origin) -> str:
        return self.commits.git.described(commit_of(origin))

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


def of_history(commits: Commits, oid: Oid) -> Base:
    """The base of files that are exactly those of a commit of the project."""
    return Base(oid, False, commits.commit(oid).when, commits.git.described(oid, "v[0-9]*", "[0-9]*"))


def commit_of(origin: Origin) -> Oid:
    """The origin's commit. Raises Rejected if the origin is no tree."""
    if origin.commit is None:
        raise Rejected(f"{origin.kind} {origin.short} is no tree of files.")
    return origin.commit
