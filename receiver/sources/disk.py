"""A virtual machine's disk that was sent: a qcow2, or raw with a partition table; packed by gzip, xz or zstd, or in a
tar together with its shipit.yml.

A disk is no tree. The commit holds a pointer to it, its digest, with the shipit.yml that came with it or with the one
before. The disk is checked here (inside/diskimage.py), so that one that is cut off, or names a file of the server, is
refused before anything is kept; the build stores it (inside/disk.py).
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import platform
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

from receiver.errors import HostFault, Rejected, as_root
from receiver.inside import diskimage
from receiver.model import Origin, Release
from receiver.names import Oid
from receiver.runtimes.disk import BOOT, POINTER
from receiver.sources.archive import kind_by
from receiver.sources.base import Stored
from receiver.sources.git.receive import Check, received
from receiver.sources.git.repository import Git
from receiver.sources.image import commit
from receiver.sources.image_members import Member, Members
from receiver.sources.limits import Limits
from receiver.system.run import PIPE, ended, find, start

YML = "shipit.yml"
MAX_YML = 2**16
CHUNK, BLOCK = 2**20, 2**12
HEAD = 2**16
PROCESSOR, PROGRAMS = "x86_64", ("qemu-system-x86_64", "qemu-img")
# The unpacker for each kind, with a limit for the memory that a file can make it use.
UNPACKERS = {
    "tar.gz": ["gzip", "-dc"],
    "tar.xz": ["xz", "-dcqq", "--memlimit-decompress=256MiB"],
    "tar.zst": ["zstd", "-dcqq", "--memory=256MB"],
}
AGAIN = "Send it again: ssh HOST deploy APP - < DISK"


class Found(NamedTuple):
    """The offset of the disk in a file, and the shipit.yml beside it (None: there is none)."""

    start: int
    size: int
    yml: str | None


class DiskSource(Stored):
    """The source of what `ssh HOST deploy APP - < disk.qcow2` brought."""

    kind = "disk"

    def takes(self, file: IO[bytes]) -> bool:
        head = _head(file)
        if kind_by(head) != "tar":
            return not kind_by(head) and diskimage.is_disk(head)
        with _as_file(head) as part:
            return _in_tar(part, _until_damage(part)) is not None

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        if said:
            raise Rejected("This is a virtual machine's disk.", hint="Leave out --archive-type.")
        _runs_here()
        with self._unpacked(file, limits) as plain:
            found = _found(plain)
            try:
                disk = diskimage.examined(plain.fileno(), found.start, found.size)
            except diskimage.Wrong as wrong:
                raise Rejected(
                    f"The disk cannot be taken: {wrong}.", holds="Nothing was received.", hint=AGAIN
                ) from None
            _fits(self.paths.dir, disk.size)
            digest = _digest(plain, found)
            pointer = {"id": digest, "format": disk.format, "size": disk.size}
            files = {POINTER: json.dumps(pointer, indent=1) + "\n", "Procfile": f"web: {BOOT}\n"}
            yml, kept = found.yml, False
            if yml is None and parent:
                yml = self._before(parent)
                kept = yml is not None
            files |= {YML: yml} if yml is not None else {}
            title = f"disk from {by}"

            def fill(git: Git) -> None:
                git.run("fast-import", "--quiet", input=commit(files, title, parent))

            oid = received(self.paths.repo, fill, check)
            self._lay_down(plain, found, digest)
        lines = [
            f"A disk ({disk.format}), {found.size / 2**20:.1f} MiB, of {disk.size / 2**30:.1f} GiB for the machine"
        ]
        lines += [f"The {YML} that came before it stays."] * kept
        return Origin(self.kind, oid, title=title, author=by, ref=f"sha256:{digest[:12]}"), lines

    def follow(self, live: Release) -> str:
        """Remove the disk that was sent: by now it is in the release's slug."""
        with suppress(FileNotFoundError):
            for left in self.paths.received_disks.iterdir():
                left.unlink()
        return ""

    def _before(self, parent: Oid) -> str | None:
        tree = self.commits.tree(parent)
        raw = tree.read(YML) if POINTER in tree.files() else None
        return None if raw is None else raw.decode(errors="replace")

    @contextmanager
    def _unpacked(self, file: IO[bytes], limits: Limits) -> Iterator[IO[bytes]]:
        kind = kind_by(os.pread(file.fileno(), 512, 0))
        if kind not in UNPACKERS:
            yield file
            return
        # Slow to import, and a push needs none.
        import tempfile

        argv = UNPACKERS[kind]
        if find(argv[0]) is None:
            raise Rejected(f"This server has no {argv[0]} to unpack the disk with.", hint="Send it as it is.")
        with tempfile.TemporaryFile(dir=self.paths.repo) as plain:
            file.seek(0)
            child = start(argv, stdin=file.fileno(), stdout=PIPE)
            assert child.stdout is not None
            with child.stdout, ended(child):
                # Half of the room, because the build makes a second copy.
                _copy_sparse(child.stdout, plain, limits.size // 2)
                code = child.wait()
            if code:
                raise Rejected("What packs the disk is damaged or cut off.", holds="Nothing was received.", hint=AGAIN)
            yield plain

    def _lay_down(self, plain: IO[bytes], found: Found, digest: str) -> None:
        """Put the disk where the build finds it, in place of an earlier one."""
        place = self.paths.received_disks
        place.mkdir(mode=0o750, exist_ok=True)
        for left in place.iterdir():
            left.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
        with open(os.open(place / digest, flags, 0o640), "wb") as copy:  # noqa: PTH123
            plain.seek(found.start)
            _copy_sparse(plain, copy, found.size, found.size)


def _head(file: IO[bytes]) -> bytes:
    """The first bytes, unpacked if the file is packed."""
    head = os.pread(file.fileno(), HEAD, 0)
    kind = kind_by(head)
    with suppress(zlib.error, lzma.LZMAError, EOFError):
        if kind == "tar.gz":
            return zlib.decompressobj(31).decompress(head, HEAD)
        if kind == "tar.xz":
            return lzma.LZMADecompressor(memlimit=2**28).decompress(head, HEAD)
        if kind == "tar.zst" and find("zstd"):
            file.seek(0)
            child = start(UNPACKERS[kind], stdin=file.fileno(), stdout=PIPE)
            assert child.stdout is not None
            try:
                return child.stdout.read(HEAD)
            finally:
                child.kill()
                child.wait()
                child.stdout.close()
                # Reading moved the file's offset; the next unpacker starts at the beginning.
                os.lseek(file.fileno(), 0, os.SEEK_SET)
    return head


@contextmanager
def _as_file(content: bytes) -> Iterator[IO[bytes]]:
    with os.fdopen(os.memfd_create("head"), "w+b") as file:
        file.write(content)
        file.flush()
        yield file


def _until_damage(file: IO[bytes]) -> list[Member]:
    """The entries of a tar as far as they can be read; the content of the last one may be missing."""
    found = []
    with suppress(Rejected):
        for member in Members(file, cut=True):
            found.append(member)
    return found


def _in_tar(file: IO[bytes], members: list[Member]) -> Found | None:
    """The disk and its shipit.yml in a tar that holds nothing else; None for any other tar."""
    disks, yml = [], None
    for member in members:
        if member.kind == b"5":
            continue
        if member.kind not in (b"0", b"\0") or "/" in member.name:
            return None
        if member.name == YML and member.size <= MAX_YML:
            yml = os.pread(file.fileno(), member.size, member.start).decode(errors="replace")
        elif diskimage.is_disk(os.pread(file.fileno(), 1024, member.start)):
            disks.append(member)
        else:
            return None
    return Found(disks[0].start, disks[0].size, yml) if len(disks) == 1 else None


def _found(file: IO[bytes]) -> Found:
    """Where the disk is; raises Rejected for a tar that is cut off, or holds more."""
    size = os.fstat(file.fileno()).st_size
    if kind_by(os.pread(file.fileno(), 512, 0)) != "tar":
        return Found(0, size, None)
    try:
        found = _in_tar(file, list(Members(file)))
    except Rejected as error:
        raise Rejected(
            "The tar with the disk is cut off or damaged.", holds="Nothing was received.", hint=AGAIN
        ) from error
    if found is None:
        raise Rejected(
            f"The tar holds more than a disk and its {YML}.", holds="Nothing was received.",
            hint=f"tar c {YML} disk.qcow2 | ssh HOST deploy APP -",
        )  # fmt: skip
    return found


def _runs_here() -> None:
    if platform.machine() != PROCESSOR:
        raise HostFault(
            f"Virtual machines run on x86-64; this server is {platform.machine()}.", holds="Nothing was received.",
            hint="Ship the app itself: docs/shipping.md",
        )  # fmt: skip
    if any(find(program) is None for program in PROGRAMS):
        packages = "qemu-system-x86 qemu-utils ovmf"
        raise HostFault(
            "This server has no qemu, which runs virtual machines.", holds="Nothing was received.",
            hint=f"On the server, once: {as_root(f'{diskimage.INSTALL} {packages}')}",
        )  # fmt: skip


def _fits(place: os.PathLike[str], size: int) -> None:
    disk = os.statvfs(place)
    if size > disk.f_blocks * disk.f_frsize:
        raise Rejected(
            f"The machine's disk of {size / 2**30:.0f} GiB is larger than the server's own.",
            holds="Nothing was received.", hint="Make it smaller: qemu-img resize --shrink DISK SIZE",
        )  # fmt: skip


def _digest(file: IO[bytes], found: Found) -> str:
    whole = hashlib.sha256()
    file.seek(found.start)
    left = found.size
    while left and (chunk := file.read(min(CHUNK, left))):
        left -= len(chunk)
        whole.update(chunk)
    return whole.hexdigest()


def _copy_sparse(source: IO[bytes], target: IO[bytes], room: int, size: int | None = None) -> None:
    """Copy `size` bytes (None: all), zeros as holes; raises Rejected if the data without zeros takes more than `room`,
    or all of it is larger than the server's disk: endless zeros compress to a few bytes."""
    disk = os.fstatvfs(target.fileno())
    most = min(diskimage.MAX_SIZE, disk.f_blocks * disk.f_frsize)
    at = taken = 0
    zeros = bytes(BLOCK)
    while size is None or at < size:
        chunk = source.read(CHUNK if size is None else min(CHUNK, size - at))
        if not chunk:
            break
        for begin in range(0, len(chunk), BLOCK):
            block = chunk[begin : begin + BLOCK]
            if block != zeros[: len(block)]:
                target.seek(at + begin)
                target.write(block)
                taken += len(block)
        at += len(chunk)
        if taken > room or at > most:
            raise Rejected(
                "The disk, unpacked, is larger than the room that the server's disk has for it.",
                holds="Nothing was received.", hint="See: shipit doctor",
            )  # fmt: skip
    target.truncate(at)
    target.flush()
