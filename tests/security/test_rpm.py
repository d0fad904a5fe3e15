"""RPM packages by the real rpmbuild, and what nobody builds: read in the jail, unpacked as a user, nothing of them run."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
import tracemalloc
from io import BytesIO
from pathlib import Path

import pytest
from host.rpms import rpm, ubuntu_deb

from receiver.errors import Failure, Rejected
from receiver.runtimes.package import rpm as reader
from receiver.runtimes.package.missing import of_rpm
from receiver.runtimes.package.rpm import look, of_bytes
from security.test_archives import Place

ROOT = Path(__file__).parents[2]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return rpm(tmp_path_factory.mktemp("good"))


def unpacked(raw: bytes, place: Path) -> Path:
    """As a build does it."""
    (place / "x.rpm").write_bytes(raw)
    argv = [sys.executable, "-m", "receiver.runtimes.package.unpack", "x.rpm", "package"]
    done = subprocess.run(argv, cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
                          check=False, timeout=60)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place / "package"


@pytest.mark.parametrize("payload", ["w9.gzdio", "w9.bzdio", "w6.xzdio", "w6.lzdio", "w3.zstdio", "w.ufdio"])
def test_an_rpm_is_read_and_unpacked_however_it_is_compressed(tmp_path: Path, payload: str) -> None:
    raw = rpm(tmp_path, payload=payload)
    if payload == "w.ufdio":
        # rpm writes no word for "not at all": it is not known here.
        assert of_bytes(raw) is None
        return
    found = look(BytesIO(raw))
    assert (found.name, found.file) == ("hello", "hello-1.0-1.noarch.rpm")
    assert b"ExecStart" in found.beside["units/hello.service"] and b"Requires: no-such-lib\n" in found.beside["header"]
    assert found.beside["files"].split() == [b"usr/lib/systemd/system/hello.service", b"usr/share/hello/serve.py"]
    top = unpacked(raw, tmp_path)
    assert "http.server" in (top / "usr/share/hello/serve.py").read_text()


def test_a_deb_of_ubuntu_which_is_compressed_by_zstd_is_read(place: Place, tmp_path: Path) -> None:
    origin, lines = place.receive(ubuntu_deb(tmp_path))
    assert lines[0].startswith("hello_1.0_all.deb") and origin.commit
    assert ".package/hello_1.0_all.deb/units/hello.service" in place.git("ls-tree", "-r", "--name-only", origin.commit)


def test_an_rpm_lies_in_the_commit_as_it_was_sent_and_the_next_version_takes_its_place(
    place: Place, good: bytes, tmp_path: Path
) -> None:
    origin, lines = place.receive(good)
    assert lines[0].startswith("hello-1.0-1.noarch.rpm") and origin.commit
    newer, lines = place.receive(rpm(tmp_path, "1.1"), parent=origin.commit)
    listed = place.git("ls-tree", "-r", "--name-only", str(newer.commit))
    assert "hello-1.1-1.noarch.rpm" in listed and "hello-1.0" not in listed and len(lines) == 2, listed


def test_any_cut_or_changed_byte_of_an_rpm_is_a_refusal_or_a_package_and_never_a_traceback(
    place: Place, good: bytes
) -> None:
    for at in range(1, len(good), max(1, len(good) // 15)):
        with pytest.raises(Failure):
            place.receive(good[:at])
    for at in (*range(0, 400, 7), *range(400, len(good), 97)):
        changed = bytearray(good)
        changed[at] ^= 0xFF
        found = of_bytes(bytes(changed))
        assert found is None or "/" not in found.file, at


def test_what_no_builder_makes_is_refused(good: bytes, tmp_path: Path) -> None:
    source = rpm(tmp_path, source=True)
    huge = good[:96] + good[96:104] + b"\xff\xff\xff\xff" + good[108:]
    for raw, why in ((source, "source package"), (huge, "header"), (b"\xed\xab\xee\xdb" + b"\0" * 200, "header")):
        with pytest.raises(Rejected, match=why):
            look(BytesIO(raw))
    with pytest.raises(Rejected, match="unpacks to more"):
        look(BytesIO(good), 300)


def header(tags: list[tuple[int, int, int, int]], store: bytes) -> bytes:
    index = b"".join(struct.pack(">IIII", *tag) for tag in tags)
    return b"\x8e\xad\xe8\x01\0\0\0\0" + struct.pack(">II", len(tags), len(store)) + index + store


def test_a_header_costs_what_it_holds_however_many_tags_say_that_all_of_it_is_theirs() -> None:
    size, binary, texts = 2**20, 7, 8
    names = b"\0" * size
    lead = reader.MAGIC + bytes(92) + header([], b"")
    unknown = lead + header([(tag, binary, tag, 1) for tag in range(300)], names)
    again = lead + header([(reader.PROVIDES, texts, 0, 5), (reader.PROVIDES, texts, 0, 9)], names)
    tracemalloc.start()
    try:
        assert reader.Rpm(BytesIO(unknown)).texts(7) == []
        assert len(reader.Rpm(BytesIO(again)).texts(reader.PROVIDES)) == 5
        assert tracemalloc.get_traced_memory()[1] < 20 * size
    finally:
        tracemalloc.stop()
    with pytest.raises(Rejected, match="more than"):
        reader.Rpm(BytesIO(lead + header([(reader.REQUIRES, texts, 0, size)], names)))


class Stream(BytesIO):
    pass


def member(name: str, mode: int = 0o100644, content: bytes = b"x", inode: int = 1, links: int = 1) -> bytes:
    fields = (inode, mode, 0, 0, links, 0, len(content), 8, 1, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08x" % field for field in fields) + name.encode() + b"\0"
    return head + b"\0" * (-len(head) % 4) + content + b"\0" * (-len(content) % 4)


@pytest.mark.parametrize("name", ["../x", "a/../../x", "./a//b", "a/./b", "/.."])
def test_a_path_in_an_rpm_that_leads_out_is_refused(name: str) -> None:
    with pytest.raises(Rejected, match="no path of a file"):
        list(reader._cpio(Stream(member(name) + member("TRAILER!!!", content=b""))))


def test_an_archive_without_an_end_or_with_a_name_without_one_is_refused() -> None:
    for raw in (
        member("a"),
        member("a")[:50],
        b"070707" + b"0" * 200,
        member("a").replace(b"00000001", b"0000000g", 1),
    ):
        with pytest.raises(Rejected):
            list(reader._cpio(Stream(raw)))


def test_a_link_in_an_rpm_is_written_last_and_no_right_of_its_files_is_kept(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "kept").write_text("mine")
    made = rpm(
        tmp_path, install=f"ln -s {secret} %{{buildroot}}/usr/bin/out; echo hi > %{{buildroot}}/usr/bin/one; "
        "chmod 6755 %{buildroot}/usr/bin/one; ln %{buildroot}/usr/bin/one %{buildroot}/usr/bin/two",
        files="/usr/bin/out\n%attr(6755, root, root) /usr/bin/one\n/usr/bin/two",
    )  # fmt: skip
    top = unpacked(made, tmp_path)
    assert (top / "usr/bin/out").is_symlink() and (secret / "kept").read_text() == "mine"
    assert (top / "usr/bin/one").read_text() == (top / "usr/bin/two").read_text() == "hi\n"
    assert stat.S_IMODE((top / "usr/bin/one").stat().st_mode) == 0o755
    assert not Path("/ran").exists()


def test_what_an_rpm_needs_and_the_machine_has_not_is_named(good: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.rpm").write_bytes(good)
    assert set(of_rpm(str(tmp_path / "x.rpm"))) == {"no-such-lib", "libnone.so.7()(64bit)"}
