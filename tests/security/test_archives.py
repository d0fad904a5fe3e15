"""Archives that somebody made to harm: each is refused with one message, and nothing of it is kept."""

from __future__ import annotations

import gzip
import io
import os
import random
import socket
import stat
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from contract.runtimes.samples import deb
from host.wheels import wheel

from receiver.errors import Failure, Rejected
from receiver.ledger.ledger import Ledger
from receiver.model import Origin
from receiver.names import AppName, Oid
from receiver.paths import Layout
from receiver.sources.all import sent
from receiver.sources.archive import ArchiveSource, spooled
from receiver.sources.git.commits import Commits
from receiver.sources.limits import Limits

LIMITS = Limits(2**30, 2**30, 1000)


class Place:
    """An app's repository, and how it was before."""

    def __init__(self, root: Path) -> None:
        self.ledger = Ledger(Layout(root).app(AppName("blog")))
        self.repo = self.ledger.paths.repo
        self.repo.parent.mkdir(parents=True)
        self.source = ArchiveSource(self.ledger.paths)
        Commits(self.repo).create()
        self.root = root

    def receive(
        self, raw: bytes, limits: Limits = LIMITS, parent: Oid | None = None, said: str = "",
        check: Callable[[Commits, Oid], None] = lambda commits, oid: None,
    ) -> tuple[Origin, list[str]]:  # fmt: skip
        path = self.root / "sent"
        path.write_bytes(raw)
        with path.open("rb") as arriving, spooled(arriving.fileno(), self.repo, limits.packed) as (file, size):
            assert size == len(raw)
            return sent(self.ledger.paths, file).receive(
                file, limits, by="alice", parent=parent, said=said, check=check
            )

    def kept(self) -> list[str]:
        """Every file of the repository, and every ref."""
        files = [str(path.relative_to(self.repo)) for path in self.repo.rglob("*") if path.is_file()]
        return sorted(files) + self.git("for-each-ref").splitlines()

    def git(self, *words: str) -> str:
        argv = ["git", f"--git-dir={self.repo}", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def tree(self, oid: str) -> dict[str, str]:
        """Path → mode of a commit."""
        lines = self.git("ls-tree", "-r", "-z", oid).split("\0")
        return {line.partition("\t")[2]: line.split()[0] for line in lines if line}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def member(name: str, content: bytes = b"x", **values: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in values.items():
        setattr(info, key, value)
    return info, content


def tar(*members: tuple[tarfile.TarInfo, bytes], mode: str = "w") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
        for info, content in members:
            archive.addfile(info, io.BytesIO(content) if info.isreg() else None)
    return out.getvalue()


def zipped(*entries: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return out.getvalue()


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=target)


def zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target.encode()


def zip_mode(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, mode << 16
    return info


def encrypted() -> bytes:
    raw = bytearray(zipped(("a", b"x")))
    raw[6] |= 1
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(raw)


WHOLE = tar(member("Procfile", b"web: x\n"), member("app.py", os.urandom(5000)))
HOSTILE: dict[str, tuple[bytes, str]] = {
    "an absolute path": (tar(member("/etc/cron.d/x")), "absolute path"),
    "a way up": (tar(member("a/../../x")), "leads out"),
    "a way up in a zip": (zipped(("../x", b"x")), "leads out"),
    "an absolute path in a zip": (zipped(("/etc/x", b"x")), "absolute path"),
    "a link out": (tar(member("f"), link("a", "../../etc/passwd")), "leads out"),
    "a link out of a top": (tar(member("top/f"), link("top/a", "../f")), "leads out"),
    "an absolute link": (tar(member("f"), link("a", "/etc/passwd")), "leads out"),
    "a link out in a zip": (zipped(("f", b"x"), zip_link("a/b", "../../x")), "leads out"),
    "a file through a link": (tar(link("a", "b"), member("a/x")), "file and a directory"),
    "a directory over a file": (tar(member("a"), member("a/x")), "file and a directory"),
    "a file over a directory": (tar(member("a/x"), member("a")), "twice"),
    "a hard link out": (tar(member("f"), link("a", "/etc/shadow", tarfile.LNKTYPE)), "absolute path"),
    "a hard link to nothing": (tar(member("f"), link("a", "b", tarfile.LNKTYPE)), "hard link"),
    "a hard link to a link": (tar(link("l", "f"), link("a", "l", tarfile.LNKTYPE), member("f")), "hard link"),
    "a device": (tar(member("f"), member("sda", b"", type=tarfile.BLKTYPE, devmajor=8)), "device"),
    "a character device": (tar(member("mem", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=1)), "device"),
    "a pipe": (tar(member("pipe", b"", type=tarfile.FIFOTYPE)), "device"),
    "a program that runs as its owner": (tar(member("x", mode=0o4755)), "run as another user"),
    "a program that runs as its group": (tar(member("x", mode=0o2755)), "run as another user"),
    "the same in a zip": (zipped((zip_mode("x", stat.S_IFREG | 0o4755), b"x")), "run as another user"),
    "a name twice": (tar(member("a"), member("a", b"y")), "twice"),
    "a name twice, written otherwise": (tar(member("a/b"), member("./a//b", b"y")), "twice"),
    "names of one case": (tar(member("README"), member("readme")), "case"),
    "directories of one case": (tar(member("Lib/a"), member("lib/b")), "case"),
    "a line break": (tar(member("a\nM 100644 x")), "control character"),
    "an escape": (tar(member("a\x1b[2J")), "control character"),
    "a backslash": (zipped(("..\\x", b"x")), "backslash"),
    "git's own name, in capitals": (tar(member(".GIT/hooks/x")), "git's own"),
    "git's own name, unseen": (tar(member(".g\u200cit/config")), "git's own"),
    "git's own name, short": (tar(member("GIT~1/config")), "git's own"),
    "a path too deep": (tar(member("d/" * 120 + "x")), "too deep"),
    "a name too long": (tar(member("n" * 300)), "too long"),
    "a tar bomb": (gzip.compress(tar(member("zeros", bytes(200 * 2**20)))), "times its size"),
    "a zip bomb": (zipped(("zeros", bytes(200 * 2**20))), "times its size"),
    "too many files": (tar(*(member(f"f{i}", b"") for i in range(1001))), "more than 1000 files"),
    "too many directories": (
        tar(member("f"), *(member(f"d{i}", b"", type=tarfile.DIRTYPE) for i in range(1001))), "more than 1000 files"
    ),
    "nothing": (b"", "empty"),
    "no file": (tar(member("d", b"", type=tarfile.DIRTYPE)), "no file"),
    "no archive": (b"#!/bin/sh\nrm -rf /\n" * 100, "no archive"),
    "cut in a file": (WHOLE[:3000], "cut off"),
    "cut between files": (WHOLE[: 512 * 2], "cut off"),
    "cut before its end": (WHOLE[: WHOLE.rindex(b"\0" * 10240)] if b"\0" * 10240 in WHOLE else WHOLE[:6656], "cut off"),
    "a damaged header": (WHOLE[:1024] + b"\xff" * 512 + WHOLE[1536:], "damaged"),
    "a gzip that is cut": (gzip.compress(WHOLE)[:-20], "cut off"),
    "a gzip that is damaged": (gzip.compress(WHOLE)[:200] + b"\0" * 200 + gzip.compress(WHOLE)[400:], "damaged"),
    "a zip that is cut": (zipped(("a", os.urandom(5000)))[:-30], "damaged"),
    "a zip with a wrong sum": (zipped(("a", b"hello")).replace(zlib.crc32(b"hello").to_bytes(4, "little"), b"abcd"), "damaged"),
    "an encrypted zip": (encrypted(), "encrypted"),
    "a size of eight exbibytes": (tar(member("f")).replace(b"00000000001", b"77777777777", 1), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_an_archive_that_no_app_would_send_is_refused_and_leaves_nothing(place: Place, case: str) -> None:
    raw, told = HOSTILE[case]
    before = place.kept()
    with pytest.raises(Rejected) as refused:
        place.receive(raw)
    assert told in refused.value.message + " ".join(refused.value.details), refused.value.message
    assert refused.value.message.isprintable()
    assert place.kept() == before


def test_too_much_is_refused_while_it_is_sent(place: Place) -> None:
    with pytest.raises(Rejected, match="larger than 1 MiB"):
        place.receive(os.urandom(2**21), Limits(2**20, 2**30, 1000))
    big = tar(member("a", os.urandom(2**21)))
    with pytest.raises(Rejected, match="larger than 1 MiB together"):
        place.receive(big, Limits(2**30, 2**20, 1000))


def test_what_is_refused_when_it_is_looked_at_leaves_nothing(place: Place) -> None:
    def check(commits: Commits, oid: Oid) -> None:
        assert "Procfile" in commits.tree(oid).files()
        raise Rejected("The Procfile is wrong.")

    before = place.kept()
    with pytest.raises(Rejected, match="Procfile is wrong"):
        place.receive(WHOLE, check=check)
    assert place.kept() == before


def large(kind: str) -> bytes:
    """More than a MiB that nothing makes smaller, as an archive or a package of this kind."""
    content = os.urandom(2**20 + 5000)
    if kind == "zip":
        return zipped(("Procfile", b"web: x\n"), ("data", content))
    if kind == "whl":
        return wheel("1.0", "x" + content.hex())
    if kind == "deb":
        return deb(**{"usr/share/hello/data": content.hex()}).encode()
    if kind == "tar.zst":
        raw = tar(member("Procfile", b"web: x\n"), member("data", content))
        done = subprocess.run(["zstd", "-qc"], input=raw, capture_output=True)
        return done.stdout if done.returncode == 0 else pytest.skip("no zstd here")
    mode = {"tar": "w"}.get(kind, f"w:{kind.removeprefix('tar.')}")
    return tar(member("Procfile", b"web: x\n"), member("data", content), mode=mode)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip", "whl", "deb"])
def test_cut_at_every_64_kib_it_is_refused_with_one_message_and_nothing_is_kept(place: Place, kind: str) -> None:
    whole = large(kind)
    assert len(whole) > 2**20
    before = place.kept()
    for kept in range(2**16, len(whole), 2**16):
        with pytest.raises(Rejected, match=r"cut off|damaged|ends inside") as refused:
            place.receive(whole[:kept])
        assert "Traceback" not in str(refused.value.details)
    assert place.kept() == before


def test_any_damage_is_refused_or_does_not_matter_and_never_a_traceback(place: Place) -> None:
    """A byte of it changed, or the rest of it gone: refused, or (a byte of some file's content) taken as it is."""
    dice = random.Random(1)
    for raw in (WHOLE, gzip.compress(WHOLE), zipped(("Procfile", b"web: x\n"), ("a/b", b"y"))):
        for _ in range(6):
            broken = bytearray(raw)
            broken[dice.randrange(len(raw))] ^= 1 << dice.randrange(8)
            for one in (bytes(broken), raw[: dice.randrange(len(raw))]):
                try:
                    place.receive(one)
                except Failure as failure:
                    assert isinstance(failure, Rejected), failure.message


def test_who_unpacks_may_start_open_and_write_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that an archive has taken over: what it then can do."""
    from receiver.sources import unpack

    def taken_over(*given: object) -> dict[str, object]:
        could = []
        acts = {
            "open": lambda: os.open("/etc/passwd", os.O_RDONLY), "connect": socket.socket, "pipe": os.pipe,
            "make": lambda: os.open(place.root / "made", os.O_CREAT | os.O_WRONLY), "start": lambda: os.posix_spawn("/bin/true", ["true"], {}),
        }  # fmt: skip
        for name, act in acts.items():
            with suppress(OSError):
                act()
                could.append(name)
        raise Rejected(f"It could: {' '.join(could) or 'nothing'}.")

    monkeypatch.setattr(unpack, "write", taken_over)
    with pytest.raises(Rejected) as told:
        place.receive(WHOLE)
    # Root, as whom these tests may run, has no limit of processes.
    assert told.value.message in ("It could: nothing.", "It could: start.")
    assert os.getuid() == 0 or "start" not in told.value.message


def test_an_archive_becomes_a_commit_with_all_that_was_sent(place: Place) -> None:
    raw = tar(
        member("Procfile", b"web: x\n"), member("bin/run", b"#!/bin/sh\n", mode=0o755), member("a b/é\"q", b"1"),
        member(".gitattributes", b"secret export-ignore\n* text eol=crlf\n"), member("secret", b"kept\n"),
        link("l", "bin/run"), link("hard", "secret", tarfile.LNKTYPE), member("void", b"", type=tarfile.DIRTYPE),
        member(".git/config", b"[core]\n"),
    )  # fmt: skip
    origin, told = place.receive(raw)
    assert place.tree(origin.id) == {
        "Procfile": "100644", "bin/run": "100755", 'a b/é"q': "100644", ".gitattributes": "100644", "secret": "100644",
        "l": "120000", "hard": "100644",
    }  # fmt: skip
    assert place.git("cat-file", "blob", f"{origin.id}:hard") == "kept\n"
    assert (origin.kind, origin.author, origin.title) == ("archive", "alice", "tar from alice")
    assert "7 files" in told[0] and "1 empty directories" in " ".join(told) and "below .git" in " ".join(told)
    with (
        place.source.open(origin) as stream,
        tarfile.open(fileobj=os.fdopen(os.dup(stream.fileno()), "rb"), mode="r|") as files,
    ):
        assert "secret" in [one.name for one in files], "an attribute in the tree dropped what was sent"


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst", "zip"])
def test_each_kind_is_known_by_its_content_and_one_top_is_stripped(place: Place, kind: str, tmp_path: Path) -> None:
    files = {"app-1.0/Procfile": b"web: x\n", "app-1.0/src/a.py": b"1\n"}
    if kind == "zip":
        raw = zipped(*files.items())
    elif kind == "tar.zst":
        done = subprocess.run(["zstd", "-qc"], input=tar(*(member(*one) for one in files.items())), capture_output=True)
        if done.returncode:
            pytest.skip("no zstd here")
        raw = done.stdout
    else:
        mode = {"tar": "w"}.get(kind, f"w:{kind.removeprefix('tar.')}")
        raw = tar(*(member(*one) for one in files.items()), mode=mode)
    origin, told = place.receive(raw, said=kind)
    assert place.tree(origin.id).keys() == {"Procfile", "src/a.py"}
    assert "app-1.0/, which is taken for the top" in " ".join(told)
    with pytest.raises(Rejected, match=r"and no tar\.br"):
        place.receive(raw, said="tar.br")


def test_its_parent_is_the_live_commit_and_equal_content_is_stored_once(place: Place) -> None:
    first, _ = place.receive(tar(member("a", b"1"), member("big", os.urandom(10**6))))
    place.source.keep(1, first)
    assert first.commit
    second, _ = place.receive(tar(member("a", b"2")), parent=first.commit)
    assert place.git("rev-parse", f"{second.id}^").strip() == first.id
    assert place.source.changes(second, first, 10) == [(second.id[:8], "tar from alice")]
    place.git("fsck", "--strict")
