"""Reads an archive into a stream for git's fast-import. archive.py runs it in a process without any other rights.

Nothing is written to disk here: a file's content goes from the archive into the stream (tree.py). If an entry is
refused, the receiver discards everything.
"""

from __future__ import annotations

import io
import stat
import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, cast

from receiver.errors import Rejected
from receiver.runtimes.package import deb, rpm
from receiver.runtimes.package.plain import FOREIGN
from receiver.runtimes.packed import BESIDE, Packed, called
from receiver.runtimes.python import wheelfile
from receiver.sources.limits import Limits
from receiver.sources.tree import CHUNK, MAX_LINK, Writer, shown

# For a tar archive: the size of one read, and how many bytes that were read may lie behind the archive's end.
BUFFER, BEHIND = 20 * 512, 2**16

# By kind of archive, the function that says whether it is a package.
PACKAGES: Mapping[str, Callable[[IO[bytes]], Packed | None]] = {"zip": wheelfile.look, "deb": deb.look, "rpm": rpm.look}


def read_tar(file: IO[bytes], writer: Writer) -> None:
    """Read a whole tar stream; raises Rejected for entries that an app's tree cannot have."""
    ends = Ends(file)
    try:
        with tarfile.open(fileobj=cast(IO[bytes], ends), mode="r|", bufsize=BUFFER, errorlevel=2) as archive:
            for member in archive:
                if member.isdir():
                    writer.directory(member.name)
                elif member.issym():
                    writer.symlink(member.name, member.linkname)
                elif member.islnk():
                    writer.same(member.name, member.linkname)
                elif member.isreg() and not member.issparse():
                    content = archive.extractfile(member)
                    assert content is not None
                    writer.file(member.name, member.mode, member.size, content)
                else:
                    raise Rejected(f"{shown(member.name)} is a device, a pipe or a sparse file; an app has none.")
                cast(Any, archive).members = []  # else it would keep all of them in memory
            # tarfile takes a damaged header, and the end of the file, for the end of the archive.
            end = int(cast(Any, archive).offset)
    except (tarfile.TarError, OverflowError) as error:
        raise Rejected(f"The tar archive is damaged or cut off ({error}).", hint="Send it again.") from error
    if not ends.ends_at(end):
        raise Rejected("The tar archive is damaged or cut off: its end is missing.", hint="Send it again.")


class Ends:
    """A stream that can check its end: a complete tar ends with at least one block of zeros and nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._last, self._count = b"", 0

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._last = (self._last + data)[-BEHIND:]
        self._count += len(data)
        return data

    def ends_at(self, end: int) -> bool:
        """Whether only zeros follow `end`, of which at most BEHIND bytes were read already; reads the rest."""
        rest = self._last[end - self._count :] if end < self._count else b""
        zeros, found = not any(rest), len(rest)
        while zeros and (chunk := self._file.read(CHUNK)):
            zeros, found = not any(chunk), found + len(chunk)
        return zeros and found >= tarfile.BLOCKSIZE


def read_zip(file: IO[bytes], writer: Writer) -> None:
    """Read a whole zip archive; the file must be seekable."""
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                mode = info.external_attr >> 16
                if info.flag_bits & 0x1:
                    raise Rejected(f"{shown(info.filename)} is encrypted.")
                if info.is_dir():
                    writer.directory(info.filename)
                    continue
                kind = stat.S_IFMT(mode)
                if kind not in (0, stat.S_IFREG, stat.S_IFLNK):
                    raise Rejected(f"{shown(info.filename)} is a device or a pipe; an app has none.")
                with archive.open(info) as content:
                    if kind == stat.S_IFLNK:
                        target = content.read(MAX_LINK + 1)
                        writer.symlink(info.filename, target.decode(errors="surrogateescape"))
                    else:
                        writer.file(info.filename, mode, info.file_size, content)
    except (zipfile.BadZipFile, NotImplementedError) as error:
        raise Rejected(f"The zip archive is damaged, cut off or of a kind unknown here ({error}).") from error


def opened(kind: str, file: IO[bytes]) -> tuple[IO[bytes], Callable[[IO[bytes], Writer], None]]:
    """The archive's decompressed content, and the function that reads it. `kind` is one of archive.KINDS."""
    if kind == "zip":
        return file, read_zip
    if kind == "tar.gz":
        import gzip

        return cast(IO[bytes], gzip.GzipFile(fileobj=file)), read_tar
    if kind == "tar.xz":
        import lzma

        # In this old format (lzma) the file itself says how much memory the dictionary takes.
        return lzma.LZMAFile(file), read_tar
    if kind == "tar.bz2":
        import bz2

        return bz2.BZ2File(file), read_tar
    return file, read_tar


def write(
    kind: str, file: IO[bytes], out: IO[bytes], limits: Limits, packed: int, title: str, when: int, parent: str | None,
    replaced: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """Read the whole archive and write it as one commit; returns a report. `replaced`: the packages at the top of the
    parent's tree. If the archive is another version of one of them, it replaces that one, and the rest of the tree
    stays."""
    writer = Writer(out, limits, packed)
    try:
        if found := package(kind, file):
            return write_package(found, file, writer, packed, title, when, parent, replaced)
        content, read = opened(kind, file)
        read(content, writer)
    except (EOFError, OSError, ValueError) as error:
        # The errors of the standard library's decompressors.
        if isinstance(error, BrokenPipeError):
            raise
        raise Rejected(f"The archive is damaged or cut off ({error}).", hint="Send it again.") from error
    except Exception as error:
        if type(error).__name__ not in FOREIGN:
            raise
        raise Rejected(f"The archive is damaged or cut off ({error}).", hint="Send it again.") from error
    return writer.commit(title, when, parent)


def package(kind: str, file: IO[bytes]) -> Packed | None:
    """What the archive is as a package (PACKAGES); None if it is a tree of files."""
    look = PACKAGES.get(kind)
    if look is None:
        return None
    try:
        found = look(file)
    except (zipfile.BadZipFile, NotImplementedError, tarfile.TarError, OverflowError, KeyError, RuntimeError) as error:
        raise Rejected(
            f"The {kind} is damaged, cut off or of a kind unknown here ({error}).", hint="Send it again."
        ) from error
    file.seek(0)
    return found


def write_package(
    found: Packed, file: IO[bytes], writer: Writer, size: int, title: str, when: int, parent: str | None,
    replaced: Sequence[str],
) -> dict[str, Any]:  # fmt: skip
    """Write the commit that holds a package, and beside it the package's description."""
    writer.file(found.file, 0o644, size, file)
    for path, raw in found.beside.items():
        writer.file(f"{BESIDE}/{found.file}/{path}", 0o644, len(raw), io.BytesIO(raw))
    same = [old for old in replaced if called(old) == called(found.file)]
    entries = dict(writer.found.entries)
    report = writer.commit(title, when, parent, gone=[*same, *(f"{BESIDE}/{old}" for old in same)])
    return {**report, "files": len(entries), "package": found.file, "kept": len(same)}
