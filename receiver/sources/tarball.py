"""Writes the tar archive of an artifact: the same files, name, version and date give the same bytes on every machine.

`shipit pack` writes it on a laptop, `releases:export` on the server.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO
from tarfile import TarFile, TarInfo
from typing import IO, NamedTuple, cast

from receiver.sources.about import ABOUT, SUMS, About

# The earliest date that zip can hold (1980); for files that are in no git checkout.
NO_DATE = 315619200
CHUNK = 2**20


class Member(NamedTuple):
    """A file in the archive: `mode` is 0644, 0755 or 0777 (a link to `target`, without content)."""

    path: str
    mode: int
    size: int = 0
    content: IO[bytes] | None = None
    target: str = ""


def own(about: About, count: int, digests: Iterable[tuple[str, str]]) -> list[tuple[str, bytes]]:
    """The two files that every archive has beside the project's `count` files: its description, and sha256sum(1)'s
    list."""
    sums = "".join(f"{digest}  {path}\n" for path, digest in digests).encode(errors="surrogateescape")
    said = {**about.encode(), "files": count, "sums": hashlib.sha256(sums).hexdigest()}
    return [(ABOUT, (json.dumps(said, indent=2) + "\n").encode()), (SUMS, sums)]


def write(out: IO[bytes], stem: str, when: int, own: Sequence[tuple[str, bytes]], members: Iterable[Member]) -> None:
    """Write everything below `STEM/`, dated `when`, owned by uid 0: first the archive's own files, then `members` in
    order."""
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, raw in own:
            archive.addfile(_info(stem, when, Member(path, 0o644, len(raw))), BytesIO(raw))
        for member in members:
            archive.addfile(_info(stem, when, member), member.content)


def _info(stem: str, when: int, member: Member) -> TarInfo:
    info = TarInfo(f"{stem}/{member.path}")
    info.mode, info.mtime, info.size, info.linkname = member.mode, when, member.size, member.target
    info.type = tarfile.SYMTYPE if member.target else tarfile.REGTYPE
    return info


def compressed(out: IO[bytes]) -> gzip.GzipFile:
    """A gzip stream to `out`, without date and name in its header."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0)


def digest(file: IO[bytes]) -> str:
    """SHA-256 of the rest of a file."""
    found = hashlib.sha256()
    while chunk := file.read(CHUNK):
        found.update(chunk)
    return found.hexdigest()


def read(file: IO[bytes]) -> tuple[TarFile, list[TarInfo]]:
    """Open a tar archive that git wrote; returns it, and its files and links sorted by path."""
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller's, as the file is
    found = [info for info in archive.getmembers() if info.isreg() or info.issym()]
    return archive, sorted(found, key=lambda info: info.name)


def members(archive: TarFile, found: Iterable[TarInfo]) -> Iterator[Member]:
    """The members with an artifact's modes: git knows only whether a file is executable."""
    for info in found:
        if info.issym():
            yield Member(info.name, 0o777, target=info.linkname)
        else:
            mode = 0o755 if info.mode & 0o100 else 0o644
            yield Member(info.name, mode, info.size, cast(IO[bytes], archive.extractfile(info)))
