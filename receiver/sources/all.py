"""The ways in which files arrive: one row each."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO

from receiver.errors import HostFault, Rejected
from receiver.model import Origin, Release
from receiver.names import Branch
from receiver.paths import AppPaths
from receiver.sources.archive import ArchiveSource
from receiver.sources.base import Sent, Source
from receiver.sources.disk import DiskSource
from receiver.sources.files import FilesSource
from receiver.sources.git import caches
from receiver.sources.git.repository import Git
from receiver.sources.git.source import GitSource
from receiver.sources.image import ImageSource
from receiver.sources.pull.source import PullSource
from receiver.sources.rsync import RsyncSource

ALL: tuple[Callable[[AppPaths], Source], ...] = (
    GitSource,
    FilesSource,
    ImageSource,
    DiskSource,
    ArchiveSource,
    PullSource,
    RsyncSource,
)


def source_of(paths: AppPaths, origin: Origin) -> Source:
    """The source that a release of the app came from; raises HostFault for one that this shipit does not know."""
    for make in ALL:
        source = make(paths)
        if source.kind == origin.kind:
            return source
    raise HostFault(
        f"The release came by {origin.kind!a}, which this shipit does not know.",
        hint="A newer shipit made it: install that one again, or put another release live.",
    )


def create(paths: AppPaths) -> None:
    """Make the repository that all of them store in; repeatable."""
    Git(paths.repo).create()


def trim(paths: AppPaths, limit: int) -> None:
    """Bound what is cached for an app (LFS files, submodules) to so many bytes; for who has the app's lock."""
    caches.trim(paths.repo, limit)


def named(paths: AppPaths, what: str, deployed: Branch | None) -> Origin:
    """What a branch, a tag or a commit's id stands for; `deployed` is the deploy branch. Raises Rejected."""
    return GitSource(paths).named(what, deployed)


def sent(paths: AppPaths, file: IO[bytes]) -> Sent:
    """The source that takes what was sent; an archive is asked last, and tells what there is."""
    found = [source for make in ALL if isinstance(source := make(paths), Sent)]
    return next((source for source in found if source.takes(file)), found[-1])


def origin_of(release: Release) -> Origin:
    """Where its files came from; raises Rejected when it has none."""
    if release.origin is None:
        raise Rejected(
            f"{release.name} came with nothing to build.", hint=f"Push a commit: git push HOST:{release.app}"
        )
    return release.origin
