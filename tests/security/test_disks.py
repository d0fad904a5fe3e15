"""Disks of virtual machines that somebody made to harm: each is refused with one message, and nothing of it is kept."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.errors import Rejected
from receiver.inside import diskimage
from receiver.ledger.ledger import Ledger
from receiver.model import Origin
from receiver.names import AppName, Oid
from receiver.ops.all import sections
from receiver.paths import Layout
from receiver.runtimes.read import read_manifest
from receiver.sources import disk
from receiver.sources.all import sent
from receiver.sources.archive import ArchiveSource, spooled
from receiver.sources.disk import DiskSource
from receiver.sources.git.commits import Commits
from receiver.sources.limits import Limits
from security.qcow2 import CLUSTER, MBR, RAW, qcow2

LIMITS = Limits(2**30, 2**30, 1000)
YML = "vm: {port: 8000, data: 1G}\n"


class Place:
    """An app's repository, and how it was before."""

    def __init__(self, root: Path) -> None:
        self.ledger = Ledger(Layout(root).app(AppName("shop")))
        self.repo = self.ledger.paths.repo
        self.repo.parent.mkdir(parents=True)
        self.ledger.paths.releases.mkdir()
        self.source = DiskSource(self.ledger.paths)
        Commits(self.repo).create()

    def receive(self, raw: bytes, limits: Limits = LIMITS, parent: Oid | None = None) -> tuple[Origin, list[str]]:
        path = self.repo.parent / "sent"
        path.write_bytes(raw)
        with path.open("rb") as sent_file, spooled(sent_file.fileno(), self.repo, LIMITS.packed) as (file, _):
            assert isinstance(sent(self.ledger.paths, file), DiskSource), "by what is in it"
            return self.source.receive(file, limits, by="ann", parent=parent, said="", check=check)

    def kept(self) -> list[str]:
        return sorted(str(path) for path in self.repo.parent.rglob("*") if path.is_file() and path.name != "sent")

    def files(self, oid: Oid) -> dict[str, str]:
        tree = self.source.commits.tree(oid)
        return {name: (tree.read(name) or b"").decode() for name in tree.files()}


def check(commits: Commits, oid: Oid) -> None:
    read_manifest(commits.tree(oid), sections())


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    # What is refused is refused whether qemu is there or not.
    monkeypatch.setattr(disk, "_runs_here", lambda: None)
    return Place(tmp_path)


def tar(**files: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("_", "."))
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def gpt(size: int) -> bytes:
    """A disk with a table of partitions that says how large it is."""
    protective = bytes(446) + bytes([0, 0, 0, 0, 0xEE, 0, 0, 0]) + struct.pack("<II", 1, size // 512 - 1)
    head = b"EFI PART" + struct.pack("<IIIIQQ", 0x10000, 92, 0, 0, 1, size // 512 - 1) + bytes(52)
    head = head[:16] + struct.pack("<I", zlib.crc32(head)) + head[20:]
    return (protective.ljust(510, b"\0") + b"\x55\xaa" + head).ljust(size, b"\0")


def long(**changes: object) -> Callable[[], bytes]:
    return lambda: qcow2(**changes)  # type: ignore[arg-type]


BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "backing-file": (long(backing=200, backing_size=11), "has a backing file"),
    "backing-file-without-a-name": (long(backing=200), "has a backing file"),
    "backing-format": (long(extensions=[(0xE2792ACA, b"raw")]), "has a backing file"),
    "external-data": (long(features=4), "keeps its data in another file"),
    "external-data-by-its-name-alone": (long(extensions=[(0x44415441, b"/etc/shadow")]), "keeps its data in another"),
    "hidden-behind-others": (
        long(extensions=[(0x6803F857, b"x" * 48), (0x44415441, b"/etc/shadow")]), "keeps its data in another",
    ),
    "encrypted": (long(crypt=1), "is encrypted"),
    "luks": (long(crypt=2), "is encrypted"),
    "luks-header": (long(extensions=[(0x0537BE77, b"\0" * 16)]), "is encrypted"),
    "snapshots": (long(snapshots=1), "holds snapshots"),
    "corrupt": (long(features=2), "marked as damaged"),
    "unknown-feature": (long(features=1 << 40), "does not know"),
    "version-1": (long(version=1), "version 1"),
    "version-9": (long(version=9), "version 9"),
    "no-size": (long(size=0), "has 0 bytes"),
    "huge": (long(size=2**60, l1_size=2**22), "bytes"),
    "larger-than-the-server": (long(size=2**45, l1_size=2**16, l1=0), "larger than the server's own|cut off"),
    "tiny-clusters": (long(bits=9), "header is damaged"),
    "huge-clusters": (long(bits=63), "header is damaged"),
    "no-table": (long(l1_size=0), "header is damaged"),
    "a-table-of-many-gigabytes": (long(l1_size=2**32 - 1), "header is damaged"),
    "a-table-beyond-the-end": (long(l1_at=2**40), "cut off"),
    "a-table-beside-its-place": (long(l1_at=CLUSTER + 8), "header is damaged"),
    "the-second-beyond-the-end": (long(l1=2**40), "cut off"),
    "content-beyond-the-end": (long(l2=[2**40]), "cut off"),
    "content-beside-its-place": (long(l2=[3 * CLUSTER + 512]), "damaged"),
    "packed-content-beyond-the-end": (long(l2=[1 << 62 | 2**40]), "cut off"),
    "one-table-for-all": (
        lambda: qcow2(size=2**36, l1_size=128, l1=0)[:CLUSTER] + struct.pack(">128Q", *[2 * CLUSTER] * 128).ljust(CLUSTER, b"\0")
        + qcow2()[2 * CLUSTER :],
        "tables are damaged",
    ),
    "raw-cut": (lambda: RAW[:-1], "cut off"),
    "gpt-cut": (lambda: gpt(2**20)[:-1], "cut off"),
    "gpt-cut-in-its-table": (lambda: gpt(2**20)[:530], "cut off"),
    "gpt-damaged": (lambda: gpt(2**20)[:530] + b"\xff" + gpt(2**20)[531:], "partition table is damaged"),
    "gzip-cut": (lambda: gzip.compress(qcow2(data=os.urandom(CLUSTER)))[:-9], "damaged or cut off"),
    "xz-cut": (lambda: lzma.compress(qcow2(data=os.urandom(CLUSTER)))[:-9], "damaged or cut off"),
    "gzip-of-a-bad-one": (lambda: gzip.compress(qcow2(backing=200)), "has a backing file"),
    "tar-of-a-bad-one": (lambda: tar(shipit_yml=YML.encode(), disk_qcow2=qcow2(features=4)), "keeps its data in another"),
    "tar-cut": (lambda: tar(shipit_yml=YML.encode(), disk_qcow2=qcow2())[: 2 * CLUSTER], "cut off or damaged"),
    "a-bad-manifest": (lambda: tar(shipit_yml=b"processes: {worker: {}}\n", disk_qcow2=qcow2()), "worker"),
    "a-directory-of-the-server": (
        lambda: tar(shipit_yml=b"storage: [uploads]\n", disk_qcow2=qcow2()), "sees no directory of the server",
    ),
    "a-command-in-the-machine": (
        lambda: tar(shipit_yml=b"processes: {web: {healthcheck: {command: ls}}}\n", disk_qcow2=qcow2()),
        "Nothing of the server runs",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_whole_disk_is_refused_and_nothing_is_kept(place: Place, name: str) -> None:
    make, told = BAD[name]
    before = place.kept()
    with pytest.raises(Rejected, match=told) as refused:
        place.receive(make())
    assert refused.value.message.count("\n") == 0
    assert place.kept() == before


def test_a_disk_that_is_cut_anywhere_is_refused(place: Place) -> None:
    whole = qcow2()
    for end in (1024, 2**16, 2**16 + 4, 2 * CLUSTER - 1, 2 * CLUSTER + 8, 3 * CLUSTER, len(whole) - 1):
        with pytest.raises(Rejected, match="cut off"):
            place.receive(whole[:end])
    place.receive(whole)


def test_what_grows_beyond_the_disks_room_when_it_is_unpacked_is_refused(place: Place) -> None:
    bomb = gzip.compress(MBR + b"\1" * 2**24)
    with pytest.raises(Rejected, match="larger than the room"):
        place.receive(bomb, Limits(2**30, 2**24, 10))


def test_zeros_without_an_end_are_not_unpacked_beyond_the_servers_disk(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fstatvfs(0)
    small = os.statvfs_result((4096, 4096, 2**10, *tuple(real)[3:10]))
    monkeypatch.setattr(os, "fstatvfs", lambda fd: small)
    place.receive(gzip.compress(RAW))
    with pytest.raises(Rejected, match="larger than the room"):
        place.receive(gzip.compress(RAW + bytes(2**24)))


def test_a_disk_with_more_clusters_than_can_be_followed_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clusters = len(qcow2()) // CLUSTER
    place.receive(qcow2())
    monkeypatch.setattr(diskimage, "MOST_CLUSTERS", 0)
    with pytest.raises(Rejected, match="content in more than 0 clusters"):
        place.receive(qcow2())
    monkeypatch.setattr(diskimage, "MOST_CLUSTERS", clusters)
    place.receive(qcow2())


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, lambda raw: tar(shipit_yml=YML.encode(), disk_img=raw),
             lambda raw: gzip.compress(tar(disk_img=raw, shipit_yml=YML.encode()))],
    ids=["plain", "gzip", "xz", "tar", "tar.gz"],
)  # fmt: skip
@pytest.mark.parametrize("raw", [RAW, qcow2(), qcow2(version=2), gpt(2**20)], ids=["raw", "qcow2", "version-2", "gpt"])
def test_however_a_disk_is_packed_it_is_the_same_pointer(
    place: Place, raw: bytes, pack: Callable[[bytes], bytes]
) -> None:
    origin, lines = place.receive(pack(raw))
    assert origin.kind == "disk" and origin.commit and "A disk" in lines[0]
    files = place.files(origin.commit)
    digest = hashlib.sha256(raw).hexdigest()
    pointer = json.loads(files.pop("shipit-disk.json"))
    assert pointer["id"] == digest and pointer["format"] == ("qcow2" if raw.startswith(b"QFI") else "raw")
    assert files.pop("Procfile") == "web: BOOT\n"
    assert files in ({}, {"shipit.yml": YML})
    laid = place.ledger.paths.received_disks / digest
    assert laid.read_bytes() == raw and [laid] == list(laid.parent.iterdir())


def test_the_shipit_yml_that_came_with_one_disk_stays_with_the_next(place: Place) -> None:
    first, _ = place.receive(tar(shipit_yml=YML.encode(), disk_img=RAW))
    second, lines = place.receive(qcow2(), parent=first.commit)
    assert second.commit and place.files(second.commit)["shipit.yml"] == YML
    assert any("stays" in line for line in lines)


NO_DISK = {
    "nothing": b"",
    "no partitions": b"\x55\xaa" * 600,
    "the end of a boot record": bytes(510) + b"\x55\xaa",
    "tar of text": tar(a=b"x" * 600),
    "tar of a shipit.yml": tar(shipit_yml=b"x"),
    "tar.gz of code": gzip.compress(tar(main_py=b"pass")),
    "tar with more": tar(disk_img=RAW, more=b"x" * 600),
    "tar of two": tar(a_img=RAW, b_img=RAW),
    "zip": b"PK\3\4" + bytes(600),
}


@pytest.mark.parametrize("raw", NO_DISK.values(), ids=NO_DISK)
def test_what_is_no_disk_is_left_to_the_other_sources(place: Place, tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "sent").write_bytes(raw)
    with (tmp_path / "sent").open("rb") as file:
        assert not place.source.takes(file)
        assert isinstance(sent(place.ledger.paths, file), ArchiveSource)
