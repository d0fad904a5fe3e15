"""The tar archive of an artifact: the same files, name, version and date give the same bytes, whoever writes it.

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

# What zip can say at the earliest (1980): of files that are in no git checkout.
NO_DATE = 315619200
CHUNK = 2**20


class Member(NamedTuple):
    """A file as it is packed: `mode` is 0644, 0755 or 0777 (a link, whose target is `target`, and which has no content)."""

    path: str
    mode: int
    size: int = 0
    content: IO[bytes] | None = None
    target: str = ""


def own(about: About, count: int, digests: Iterable[tuple[str, str]]) -> list[tuple[str, bytes]]:
    """The two files that every archive has beside the project's `count`: who it is, and what sha256sum(1) checks it by."""
    sums = "".join(f"{digest}  {path}\n" for path, digest in digests).encode(errors="surrogateescape")
    said = {**about.encode(), "files": count, "sums": hashlib.sha256(sums).hexdigest()}
    return [(ABOUT, (json.dumps(said, indent=2) + "\n").encode()), (SUMS, sums)]


def write(out: IO[bytes], stem: str, when: int, own: Sequence[tuple[str, bytes]], members: Iterable[Member]) -> None:
    """All below `STEM/`, dated `when`, owned by nobody in particular: what is its own first, then `members` as they come."""
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
    """What is written to it goes to `out` by gzip; no date and no name are in its header."""
    return gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=out, mtime=0)


def digest(file: IO[bytes]) -> str:
    """SHA-256 of what is left of a file."""
    found = hashlib.sha256()
    while chunk := file.read(CHUNK):
        found.update(chunk)
    return found.hexdigest()


def read(file: IO[bytes]) -> tuple[TarFile, list[TarInfo]]:
    """A tar archive of git's that lies in a file, and its files and links by their paths."""
    archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 - the caller's, as the file is
    found = [info for info in archive.getmembers() if info.isreg() or info.issym()]
    return archive, sorted(found, key=lambda info: info.name)


def members(archive: TarFile, found: Iterable[TarInfo]) -> Iterator[Member]:
    """Them, with the modes of an artifact: who else may read a file is nothing that git knows."""
    for info in found:
        if info.issym():
            yield Member(info.name, 0o777, target=info.linkname)
        else:
            mode = 0o755 if info.mode & 0o100 else 0o644
            yield Member(info.name, mode, info.size, cast(IO[bytes], archive.extractfile(info)))
