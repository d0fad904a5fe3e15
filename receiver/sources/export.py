"""Gives out the artifact of a release: the package that was sent, unchanged, or its files as an archive.

The archive is the one that `shipit pack` makes of the same files: the same bytes each time, and on either machine.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tarfile import TarFile, TarInfo
from typing import IO, cast

from receiver.errors import Rejected
from receiver.model import Release
from receiver.paths import AppPaths
from receiver.runtimes.packed import BESIDE, ENDINGS
from receiver.runtimes.python import packed as project
from receiver.sources import about, tarball
from receiver.sources.about import ABOUT, SUMS, About
from receiver.sources.all import origin_of, source_of
from receiver.sources.disk import DiskSource
from receiver.sources.image import ImageSource
from receiver.sources.tarball import CHUNK, NO_DATE


@dataclass(frozen=True)
class Export:
    """`name` is the file's usual name, `digest` its SHA-256; `file` is at its beginning."""

    name: str
    digest: str
    size: int
    file: IO[bytes]


@contextmanager
def exported(paths: AppPaths, release: Release, *, tree: bool = False) -> Iterator[Export]:
    """The artifact. If a release is just a package, that package, unless `tree` asks for an archive of its files.

    Raises Rejected if the files are not kept any more, Busy if the app is being deployed and that matters.
    """
    origin = origin_of(release)
    source = source_of(paths, origin)
    if not source.has(origin):
        raise Rejected(f"What {release.name} was built from is not kept any more.")
    if not tree and (stored := what_stored(release)):
        raise Rejected(f"{release.name} is a {stored}, which its origin names by its digest.")
    with tempfile.TemporaryFile(dir=paths.repo) as spool, tempfile.TemporaryFile(dir=paths.repo) as out:
        with source.reopen(origin) as stream:
            while chunk := os.read(stream.fileno(), CHUNK):
                spool.write(chunk)
        spool.seek(0)
        archive, found = tarball.read(spool)
        with archive:
            own = [info for info in found if not info.name.startswith(f"{BESIDE}/")]
            if not tree and len(own) == 1 and own[0].isreg() and own[0].name.endswith(ENDINGS):
                kept = cast(IO[bytes], archive.extractfile(own[0]))
                yield Export(own[0].name, tarball.digest(kept), own[0].size, _rewound(kept))
                return
            name = _pack(paths, release, archive, found, out)
        size = out.tell()
        yield Export(name, tarball.digest(_rewound(out)), size, _rewound(out))


def what_stored(release: Release) -> str:
    """What a release has in the server's store instead of a tree; "" if nothing."""
    kinds = {ImageSource.kind: "container image", DiskSource.kind: "virtual machine's disk"}
    return kinds.get(origin_of(release).kind, "")


def _pack(paths: AppPaths, release: Release, archive: TarFile, found: list[TarInfo], out: IO[bytes]) -> str:
    """Write an archive of these files; returns its name."""
    said = _said(paths, release)
    theirs = sorted((info for info in found if info.name in (ABOUT, SUMS)), key=lambda info: info.name != ABOUT)
    found = [info for info in found if info.name not in (ABOUT, SUMS)]
    own: list[tuple[str, bytes]] = []
    if not theirs:
        plain = [info for info in found if info.isreg()]
        digests = ((info.name, tarball.digest(cast(IO[bytes], archive.extractfile(info)))) for info in plain)
        own = tarball.own(said, len(found), digests)
    stem = f"{said.name}-{said.version}"
    with tarball.compressed(out) as packed:
        # Include the description that came with the files; it stands first.
        tarball.write(cast(IO[bytes], packed), stem, said.when, own, tarball.members(archive, [*theirs, *found]))
    return f"{stem}.tar.gz"


def _said(paths: AppPaths, release: Release) -> About:
    """The archive's description: the one that came with the files, else from the project and git."""
    origin = origin_of(release)
    source = source_of(paths, origin)
    files = source.tree(origin)
    base = source.base(origin)
    if said := about.read(files):
        return said if said.when else About(said.name, said.version, said.commit, said.dirty, max(base.when, NO_DATE))
    try:
        name = about.named(project.said(files).name)
    except Rejected:
        name = ""  # its pyproject.toml is not valid
    name = name if about.is_word(name) else str(release.app)
    version = about.versioned(base.described, base.commit, dirty=base.dirty)
    if not base.commit or not about.is_word(version):
        version = f"0.0.0+{release.name}"
    return About(name, version, base.commit, base.dirty, max(base.when, NO_DATE))


def _rewound(file: IO[bytes]) -> IO[bytes]:
    file.seek(0)
    return file
