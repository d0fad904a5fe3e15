"""The ways in which files arrive: one row each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import IO

from receiver.errors import HostFault, Rejected
from receiver.model import Origin, Release
from receiver.names import Branch
from receiver.paths import AppPaths
from receiver.sources.base import Sent, Source
from receiver.sources.git import caches
from receiver.sources.git.repository import Git

# For each kind in a release's record, the module and its class. A module is imported only when its kind is needed:
# nearly all releases come by git, and a command waits for each import.
ALL: Mapping[str, str] = {
    "git": "receiver.sources.git.source:GitSource",
    "files": "receiver.sources.files:FilesSource",
    "image": "receiver.sources.image:ImageSource",
    "disk": "receiver.sources.disk:DiskSource",
    "archive": "receiver.sources.archive:ArchiveSource",
    "pull": "receiver.sources.pull.source:PullSource",
    "rsync": "receiver.sources.rsync:RsyncSource",
}


def _make(kind: str, paths: AppPaths) -> Source:
    module, _, name = ALL[kind].partition(":")
    make: Callable[[AppPaths], Source] = getattr(import_module(module), name)
    return make(paths)


def source_of(paths: AppPaths, origin: Origin) -> Source:
    """The source that a release of the app came from; raises HostFault if this shipit does not know its kind."""
    if origin.kind in ALL:
        return _make(origin.kind, paths)
    raise HostFault(
        f"The release came by {origin.kind!a}, which this shipit does not know.",
        hint="A newer shipit made it: install that one again, or put another release live.",
    )


def create(paths: AppPaths) -> None:
    """Make the repository that all sources store commits in; repeatable."""
    Git(paths.repo).create()


def trim(paths: AppPaths, limit: int) -> None:
    """Limit the app's caches (LFS files, submodules) to so many bytes; the caller holds the app's lock."""
    caches.trim(paths.repo, limit)


def named(paths: AppPaths, what: str, deployed: Branch | None) -> Origin:
    """The origin for a branch, a tag or a commit's id; `deployed` is the deploy branch. Raises Rejected."""
    from receiver.sources.git.source import GitSource

    return GitSource(paths).named(what, deployed)


def sent(paths: AppPaths, file: IO[bytes]) -> Sent:
    """The source that takes what was sent. The archive source is asked last, and its error lists the known kinds."""
    found = [source for kind in ALL if isinstance(source := _make(kind, paths), Sent)]
    return next((source for source in found if source.takes(file)), found[-1])


def origin_of(release: Release) -> Origin:
    """The origin of the release's files; raises Rejected if it has none."""
    if release.origin is None:
        raise Rejected(
            f"{release.name} came with nothing to build.", hint=f"Push a commit: git push HOST:{release.app}"
        )
    return release.origin
