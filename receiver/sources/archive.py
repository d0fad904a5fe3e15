"""A tar or zip archive that was sent: its files become a commit of shipit's, whose parent is the live commit."""

from __future__ import annotations

import json
import os
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO, Any

from receiver.errors import Failure, Rejected, printable
from receiver.model import Origin
from receiver.names import Oid
from receiver.runtimes.package.plain import ZSTD
from receiver.runtimes.packed import ENDINGS
from receiver.sources import about
from receiver.sources.base import Stored
from receiver.sources.git.receive import Check, received
from receiver.sources.git.repository import Git
from receiver.sources.limits import Limits, too_large
from receiver.system.detach import detach
from receiver.system.ends import Ends, arriving, why
from receiver.system.run import PIPE, Program, ended, find, start

# The first bytes of each kind of archive (tar's are at 257).
MAGIC = {
    b"\x1f\x8b": "tar.gz", b"\xfd7zXZ\0": "tar.xz", b"BZh": "tar.bz2", b"\x28\xb5\x2f\xfd": "tar.zst", b"PK\3\4": "zip",
    b"!<arch>\ndebian-binary": "deb", b"\xed\xab\xee\xdb": "rpm",
}  # fmt: skip
KINDS = ("tar", *MAGIC.values())
# Seconds: without a byte (an image may be packed while it is sent), and for the whole transfer.
SILENCE, LONGEST = 600.0, 3600.0
USTAR = slice(257, 262)
CHUNK = 2**18
# Limits of the process that reads the archive: more than any allowed archive of an app needs.
MEMORY, CPU = 768 * 2**20, 900


class ArchiveSource(Stored):
    """The source of what `shipit deploy APP - < tree.tar.gz` brought."""

    kind = "archive"

    def takes(self, file: IO[bytes]) -> bool:
        return bool(kind_by(os.pread(file.fileno(), 512, 0)))

    def receive(
        self, file: IO[bytes], limits: Limits, *, by: str, parent: Oid | None, said: str, check: Check
    ) -> tuple[Origin, list[str]]:
        """As in base.Sent; `said` is the kind of archive that the sender named ("" for none)."""
        kind = kind_of(file, said)
        title = f"{kind} from {by}"
        old = [path for path in self.commits.tree(parent).files() if path.endswith(ENDINGS)] if parent else []
        old = [path for path in old if "/" not in path]
        report: dict[str, Any] = {}
        oid = received(
            self.paths.repo, lambda git: report.update(imported(git, kind, file, limits, title, parent, old)), check
        )
        packed = about.read(self.commits.tree(oid))
        if report["package"]:
            title = f"{report['package']} from {by}"
        if packed is None or report["package"]:
            return Origin(self.kind, oid, title=title, author=by), told(report)
        title = f"{packed.name} {packed.version} ({kind}) from {by}"
        return Origin(self.kind, oid, title=title, author=by, ref=packed.ref), told(report)


def kind_by(head: bytes) -> str:
    """The kind in KINDS that begins like this; "" for none."""
    kind = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    return kind or ("tar" if head[USTAR] == b"ustar" else "")


def kind_of(file: IO[bytes], said: str) -> str:
    """The kind in KINDS, by the file's first bytes; raises Rejected if it is none, or not the kind `said`."""
    head = os.pread(file.fileno(), 512, 0)
    kind = kind_by(head)
    known = f"It knows: {', '.join(KINDS)}. Send one: tar cz . | ssh shipit@HOST deploy APP -"
    if not head:
        raise Rejected("Nothing was sent: standard input is empty.", hint=known)
    if not kind:
        raise Rejected("This is no archive that shipit knows.", hint=known)
    if said and said != kind:
        raise Rejected(f"This is a {kind} archive and no {said}.", hint="Leave out --archive-type.")
    return kind


def sent(source: int) -> Iterator[bytes]:
    """The data from a descriptor, in parts; raises Rejected if it takes too long."""
    try:
        yield from arriving(source, Ends(LONGEST, SILENCE), CHUNK)
    except TimeoutError as error:
        raise Rejected(f"What was sent is not whole: {why(error)}.", holds="Nothing was changed.") from error


@contextmanager
def spooled(source: int, folder: Path, limit: int) -> Iterator[tuple[IO[bytes], int]]:
    """The data from a descriptor, in an unnamed file, and its size in bytes; raises Rejected beyond `limit`."""
    # Slow to import, and a push needs none.
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        size = 0
        for chunk in sent(source):
            size += len(chunk)
            if size > limit:
                raise too_large("The archive", limit)
            file.write(chunk)
        file.flush()
        file.seek(0)
        yield file, size


def imported(
    git: Git, kind: str, file: IO[bytes], limits: Limits, title: str, parent: Oid | None, old: Sequence[str] = ()
) -> dict[str, Any]:
    """Have a sandboxed process read the archive into git's fast-import; returns its report."""
    unpacker = zstd(file) if kind == "tar.zst" else None
    child = git.fast_import()
    assert child.stdin is not None and child.stderr is not None
    reader, writer = os.pipe()
    packed = os.fstat(file.fileno()).st_size
    content = unpacker.stdout.fileno() if unpacker and unpacker.stdout else file.fileno()
    with ended(child), ended(unpacker) if unpacker else nullcontext():
        pid = os.fork()
        if pid == 0:
            jailed(content, child.stdin.fileno(), writer, (kind, limits, packed, title, int(time.time()), parent, old))
        os.close(writer)
        child.stdin.close()
        with os.fdopen(reader, "rb") as pipe:
            raw = pipe.read(2**16)
        status = os.waitpid(pid, 0)[1]
        if unpacker and unpacker.stdout:
            unpacker.stdout.close()
            unpacker.wait()
        said = child.stderr.read(2**16).decode(errors="replace")
        code = child.wait()
    report = answer(raw, status)
    if unpacker and unpacker.returncode:
        raise Rejected("The zstd archive is damaged or cut off.", hint="Send it again.")
    if code:
        raise Rejected("git refuses the files of the archive.", details=said.splitlines()[-5:])
    return report


def zstd(file: IO[bytes]) -> Program:
    """A running zstd(1) with a memory limit: Python's library has zstd only since 3.14."""
    if find("zstd") is None:
        raise Rejected(
            "This server has no zstd to unpack the archive with.", hint="Send it as .tar.gz, or install zstd."
        )
    return start(["zstd", "-dcqq", "--memory=256MB"], stdin=file.fileno(), stdout=PIPE)


def jailed(content: int, out: int, report: int, what: tuple[Any, ...]) -> None:
    """In a fork: read the archive, with no right to start or open anything, or to write to other descriptors. Never
    returns.

    Even if a bad archive takes over this process, it has only shipit's user, limited memory and time, and these three
    descriptors.
    """
    try:
        detach({content, out, report}, "shipit-unpack")
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        from receiver.sources import unpack

        modules = ("gzip", "lzma", "bz2", ZSTD, "encodings.idna", "encodings.cp437")
        for name in modules:
            __import__(name)
        for kind, most in (
            (resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_CPU, CPU), (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NPROC, 0), (resource.RLIMIT_CORE, 0),
        ):  # fmt: skip
            hard = resource.getrlimit(kind)[1]
            most = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (most, most))
        highest = max(content, out, report) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, highest))
        # No descriptor number is left for a new file.
        with suppress(OSError):
            while True:
                os.dup(report)
        archive, limits, packed, title, when, parent, old = what
        with os.fdopen(content, "rb", closefd=False) as file, os.fdopen(out, "wb", closefd=False) as stream:
            try:
                said = {"ok": unpack.write(archive, file, stream, limits, packed, title, when, parent, old)}
            except Failure as failure:
                said = {"error": {"message": failure.message, "hint": failure.hint}}
            except (MemoryError, RecursionError):
                said = {"error": {"message": "The archive needs more memory than there is for it.", "hint": ""}}
            os.write(report, json.dumps(said).encode()[: 2**15])
    finally:
        os._exit(0)


def answer(raw: bytes, status: int) -> dict[str, Any]:
    """The reader's report; raises the error that it reports. Only text and numbers are accepted from it."""
    try:
        said = json.loads(raw)
        if "error" in said:
            raise Rejected(
                printable(str(said["error"]["message"])), holds="Nothing was received.",
                hint=printable(str(said["error"]["hint"])),
            )  # fmt: skip
        ok = said["ok"]
        return {
            **{name: int(ok.get(name, 0)) for name in ("files", "size", "left_out", "empty", "kept")},
            **{name: printable(str(ok.get(name, ""))) for name in ("top", "package")},
        }
    except (ValueError, KeyError, TypeError) as error:
        raise Rejected(
            "The archive could not be read: its reader ended"
            + (f" by signal {os.WTERMSIG(status)}." if os.WIFSIGNALED(status) else "."),
            holds="Nothing was received.",
        ) from error


def told(report: dict[str, Any]) -> list[str]:
    """The lines about it for the sender."""
    if report["package"]:
        lines = [f"{report['package']}, {report['size'] / 2**20:.1f} MiB"]
        return lines + ["It takes the place of the one before; what lies beside it stays."] * bool(report["kept"])
    lines = [f"{report['files']} files, {report['size'] / 2**20:.1f} MiB"]
    if report["top"]:
        lines.append(f"All of it is below {ascii(report['top'])[1:-1]}/, which is taken for the top of the app.")
    if report["left_out"]:
        lines.append(f"{report['left_out']} entries below .git were left out.")
    if report["empty"]:
        lines.append(f"{report['empty']} empty directories were left out: git holds files only.")
    return lines
