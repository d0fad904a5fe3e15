"""Wheels and Debian packages that somebody made to harm: refused with one message, or they get nowhere; nothing is run."""

from __future__ import annotations

import contextlib
import io
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from contract.runtimes.samples import deb
from host.wheels import wheel

from receiver.errors import Failure, Rejected
from receiver.manifest import Tree
from receiver.runtimes.package import missing, unit
from receiver.runtimes.package.deb import look, of_bytes
from receiver.runtimes.python import wheelfile
from receiver.runtimes.read import read_manifest
from security.test_archives import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def ar(parts: Mapping[str, bytes]) -> bytes:
    head = b"!<arch>\n"
    return head + b"".join(
        f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(part):<10}`\n".encode() + part + b"\n" * (len(part) % 2)
        for name, part in parts.items()
    )


def tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for info, raw in members:
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    return out.getvalue()


def package(control: str, *data: tuple[tarfile.TarInfo, bytes], **parts: bytes) -> bytes:
    named = {"debian-binary": b"2.0\n", "control.tar": tar((tarfile.TarInfo("./control"), control.encode())),
             "data.tar": tar(*data)}  # fmt: skip
    return ar({**named, **{name.replace("_", "."): part for name, part in parts.items()}})


def control(name: str = "hello", version: str = "1.0", architecture: str = "all") -> str:
    return f"Package: {name}\nVersion: {version}\nArchitecture: {architecture}\n"


GOOD = deb().encode()
BAD_DEBS = {
    "cut off": GOOD[:-600],
    "only its head": GOOD[:70],
    "something behind it": GOOD + b"x",
    "another part": package(control(), more=b"x"),
    "nothing that says which format": ar(
        {"other": b"2.0\n", "control.tar": tar((tarfile.TarInfo("./control"), control().encode())), "data.tar": tar()}
    ),
    "no data": ar({"debian-binary": b"2.0\n", "control.tar": b"", "other.tar": b""}),
    "zstd": ar({"debian-binary": b"2.0\n", "control.tar.zst": b"", "data.tar.zst": b""}),
    "a name that leads out": package(control(name="../../etc/x")),
    "a version that leads out": package(control(version="1/../../x")),
    "an architecture with a blank": package(control(architecture="a b")),
    "no control file": ar({"debian-binary": b"2.0\n", "control.tar": tar(), "data.tar": tar()}),
    "a control file as large as a film": package(control() + "X: " + "x" * 2**19),
    "a size that is none": GOOD[:56] + b"-1        " + GOOD[66:],
}


@pytest.mark.parametrize("name", BAD_DEBS)
def test_a_deb_that_no_builder_makes_is_refused_and_leaves_nothing(place: Place, name: str) -> None:
    before = place.kept()
    with pytest.raises(Rejected) as refused:
        place.receive(BAD_DEBS[name])
    assert "\n" not in refused.value.message and "Traceback" not in refused.value.message
    assert place.kept() == before
    assert of_bytes(BAD_DEBS[name]) is None, "one that was pushed is only not understood"


def test_any_cut_of_a_deb_or_a_wheel_is_refused_and_never_a_traceback(place: Place) -> None:
    for raw in (GOOD, wheel("1.0", "one")):
        for at in range(1, len(raw), len(raw) // 15):
            with pytest.raises(Failure):
                place.receive(raw[:at])


def test_a_package_is_called_as_it_says_itself_and_lies_in_the_commit_as_it_was_sent(place: Place) -> None:
    origin, lines = place.receive(GOOD)
    assert lines[0].startswith("hello_1.0_all.deb") and origin.commit
    listed = place.git("ls-tree", "-r", "--name-only", origin.commit).split()
    assert listed == [".package/hello_1.0_all.deb/control", ".package/hello_1.0_all.deb/files",
                      ".package/hello_1.0_all.deb/units/hello.service", "hello_1.0_all.deb"]  # fmt: skip
    argv = ["git", f"--git-dir={place.repo}", "cat-file", "blob", f"{origin.commit}:hello_1.0_all.deb"]
    assert subprocess.run(argv, check=True, capture_output=True).stdout == GOOD
    # The next version takes its place, another package all of it.
    newer, lines = place.receive(deb("1.1").encode(), parent=origin.commit)
    assert "hello_1.1_all.deb" in place.git("ls-tree", "--name-only", str(newer.commit))
    assert "hello_1.0" not in place.git("ls-tree", "-r", "--name-only", str(newer.commit)) and len(lines) == 2
    other, lines = place.receive(wheel("2.0", "x"), parent=newer.commit)
    assert "deb" not in place.git("ls-tree", "-r", "--name-only", str(other.commit)) or len(lines) == 2


BAD_WHEELS = {
    "no tag": ("Tag: py3-none-any", "Tab: x"),
    "a tag that leads out": ("Tag: py3-none-any", "Tag: ../x-none-any"),
    "a tag of two parts": ("Tag: py3-none-any", "Tag: py3-none"),
}


@pytest.mark.parametrize("name", BAD_WHEELS)
def test_a_wheel_that_is_none_is_refused(place: Place, name: str) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(wheel("1.0", "x"))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info).replace(*(text.encode() for text in BAD_WHEELS[name])))
    with pytest.raises(Rejected):
        place.receive(out.getvalue())


class Files:
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def files(self) -> Mapping[str, str]:
        return {path: path for path in self._files}

    def links(self) -> Mapping[str, str]:
        return {}

    def read(self, path: str) -> bytes | None:
        return self._files.get(path)


def test_what_a_unit_says_is_words_and_nothing_of_it_is_run_by_another_shell() -> None:
    files = {"usr/bin/app", "usr/share/app/x"}

    def line(start: str, more: str = "") -> str:
        return unit.command(f"[Service]\nExecStart={start}\n{more}", files)

    assert line("/usr/bin/app --port $PORT; touch /ran") == 'exec "$PACKAGE"/usr/bin/app --port "$PORT"\';\' touch /ran'
    assert line("-/usr/bin/app `id` $(id) 50%%") == "exec \"$PACKAGE\"/usr/bin/app '`id`' '$(id)' 50%"
    assert line('/bin/sh -c "exec app $$PORT"') == "exec /bin/sh -c 'exec app ''$'PORT"
    assert line("/usr/bin/app %i") == "" and line("") == ""
    assert line("/usr/bin/app", "Environment=HOST=%H\n") == ""
    assert line("/usr/bin/app", "Environment=PORT=1 A=b PATH;x=1\nWorkingDirectory=/usr/share/app\n") == (
        'cd "$PACKAGE"/usr/share/app && exec env A=b "$PACKAGE"/usr/bin/app'
    )
    said = subprocess.run(
        ["sh", "-c", line('/bin/echo "a b" $PORT \'c\' x;y "$$HOME" *')], env={"PORT": "8 0", "PATH": "/bin"},
        capture_output=True, check=True, text=True,
    ).stdout  # fmt: skip
    assert said == "a b 8 0 c x;y $HOME *\n"


def test_several_packages_or_programs_are_answered_by_name() -> None:
    def told(files: Mapping[str, bytes]) -> str:
        with pytest.raises(Rejected) as refused:
            read_manifest(Files(files))
        return str(refused.value.lines())

    one = wheel("1.0", "x")
    assert "several wheels at the top" in told({"a-1-py3-none-any.whl": one, "b-1-py3-none-any.whl": one})
    assert "several packages at the top" in told({"a_1_all.deb": GOOD, "b_1_all.deb": GOOD})
    many = wheel("1.0", "x", scripts="one = hello:main\ntwo = hello:main\n")
    assert "brings several programs: one, two" in told({"hello-1.0-py3-none-any.whl": many})
    # Beside sources, or named by the requirements, a wheel is what it ever was.
    tree: Tree = Files({"hello-1.0-py3-none-any.whl": one, "app.py": b"", "Procfile": b"web: x\n"})
    assert read_manifest(tree).runtimes[0][1] != "hello-1.0-py3-none-any.whl"
    assert wheelfile.scripts(b"[other]\na = b\n[console_scripts]\nx = y:z\n../x = y:z\n") == ["x"]


@pytest.mark.parametrize("at", [6, 8])
@pytest.mark.parametrize("bits", [1, 8, 12, 14, 99])
def test_a_pushed_wheel_that_nobody_can_unpack_says_nothing_and_is_no_traceback(at: int, bits: int) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name in ("WHEEL", "METADATA", "RECORD"):
            archive.writestr(f"a-1.dist-info/{name}", "Tag: py3-none-any\n" * 20)
    raw = bytearray(out.getvalue())
    # The flags (6) and the compression (8) of each member, and two bytes further in the directory.
    for head, field in ((b"PK\3\4", at), (b"PK\1\2", at + 2)):
        found = raw.find(head)
        while found >= 0:
            raw[found + field] = bits
            found = raw.find(head, found + 4)
    tree = Files({"a-1-py3-none-any.whl": bytes(raw), "Procfile": b"web: x\n"})
    with contextlib.suppress(Rejected):
        wheelfile.needs(tree, "a-1-py3-none-any.whl")


def test_what_is_not_installed_is_named_and_an_alternative_suffices() -> None:
    installed = frozenset({"libc6", "python3", "awk"})
    needs = "libc6 (>= 2.3), gawk | awk, libfoo1 (= 1) | libfoo2, python3:any"
    assert missing.missing(needs, installed) == ["libfoo1 (= 1) | libfoo2"]
    assert look(io.BytesIO(GOOD)).name == "hello"
