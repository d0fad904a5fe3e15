"""What a source is: one way in which files arrive. Each is a module or folder here, and one row of sources/all.py.

What arrives as files becomes a commit in the app's own repository, so one base, `Stored`, does all but the arriving.
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
    """All files of an origin as a tar stream; whoever gets the descriptor reads it to its end."""

    def fileno(self) -> int: ...


class Base(NamedTuple):
    """The commit of the project's own history that files come from ("": none), whether they differ from it, when it was
    made, and how it stands to the tags (`git describe --long`)."""

    commit: str
    dirty: bool
    when: int
    described: str


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

    def has(self, origin: Origin) -> bool:
        """Whether its files are still kept."""

    def listed(self, origin: Origin) -> Mapping[str, Entry]:
        """Every file, link and submodule, by its path."""

    def reopen(self, origin: Origin) -> AbstractContextManager[Stream]:
        """As `open`, for who has not the app's lock. Raises Busy when that is needed and somebody else has it."""

    def base(self, origin: Origin) -> Base:
        """What an artifact of these files says of where they come from."""

    def described(self, origin: Origin) -> str:
        """How it stands to the tags there are: `TAG-COUNT-gCOMMIT`, `COUNT-gCOMMIT` without a tag, "" if that is no
        question of this source."""

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


@runtime_checkable
class Sent(Protocol):
    """A source whose files come on standard input, to `shipit deploy APP -`; the first row that `takes` them has them."""

    def takes(self, file: IO[bytes]) -> bool:
        """Whether this is its own, by what is in it. The file stands at its beginning, before and after."""

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        """Make a commit of it; returns its origin, and lines to tell the sender.

        The caller has the app's turn. `file` is all of it, `said` what the sender claims it to be, `parent` the live
        commit. `check` looks at the commit before the app's repository has it, and raises what is wrong with it. Raises
        Rejected, with nothing kept, for what is damaged, beyond the limits, or no tree of an app.
        """


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

    @contextmanager
    def reopen(self, origin: Origin) -> Iterator[Stream]:
        from receiver.sources.git.overlay import points

        # What a commit only points at is put together in a directory that a build of the same app would take away.
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
        # A commit of shipit's own, which is of no history.
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
    """What is to say of files that are just those of a commit of the project's."""
    return Base(oid, False, commits.commit(oid).when, commits.git.described(oid, "v[0-9]*", "[0-9]*"))


def commit_of(origin: Origin) -> Oid:
    """Raises Rejected for an origin that is no tree."""
    if origin.commit is None:
        raise Rejected(f"{origin.kind} {origin.short} is no tree of files.")
    return origin.commit
