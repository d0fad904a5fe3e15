"""`shipit pack`: the same files give the same bytes, an artifact says what it is, and what is sent can be signed."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from receiver.client.artifact import artifact_of
from receiver.client.files import select, without
from receiver.client.forgotten import forgotten
from receiver.client.main import local
from receiver.client.pack import sign, signature_of, write
from receiver.client.units import quoted, unit
from receiver.errors import Denied, Rejected
from receiver.sources.about import About, read
from receiver.sources.signed import verified

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "Procfile": "web: bin/serve $PORT\n", "bin/serve": "#!/bin/sh\nexec python3 -m http.server $1\n",
    "hello_web/__init__.py": "def main(): ...\n", ".gitignore": "*.log\n",
    "pyproject.toml": '[build-system]\nrequires = ["hatchling"]\nbuild-backend = "hatchling.build"\n'
    '[project]\nname = "hello-web"\nversion = "1.2"\ndescription = "Says hello"\n',
}  # fmt: skip
# The client with another clock; the words follow.
PACK = "import sys, time; clock = float(sys.argv.pop(1)); time.time = lambda: clock; from receiver.entry import main; main()"


def project(path: Path, **more: str) -> Path:
    """A checkout with a tag, always the same commit."""
    path.mkdir(parents=True)
    for name, text in {**FILES, **more}.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_text(text)
    (path / "bin/serve").chmod(0o700)
    (path / "current").symlink_to("bin/serve")
    when = "2026-02-03T04:05:06+0000"
    env = {**os.environ, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
    for words in (["init", "-q"], ["config", "user.name", "Ann"], ["config", "user.email", "ann@example.org"],
                  ["add", "-A"], ["commit", "-q", "-m", "one"], ["tag", "v1.2.0"]):  # fmt: skip
        subprocess.run(["git", "-C", path, *words], check=True, env=env)
    return path


def packed(root: Path, *formats: str, umask: int, clock: int, user: str = "") -> dict[str, str]:
    """Digest of each artifact that the client makes there, as somebody whose umask, clock, user and zone are his own."""
    if user:
        subprocess.run(["chown", "-R", user, root], check=True)
    words = [word for form in formats for word in ("--format", form)]
    env = {**os.environ, "HOME": str(root), "PYTHONPATH": str(ROOT), "TZ": f"X{umask % 9}"}
    argv = [sys.executable, "-c", PACK, str(clock), "pack", "--json", *words]
    done = subprocess.run(argv, cwd=root, env=env, umask=umask, user=user or None, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return {Path(row["artifact"]).name: row["sha256"] for row in json.loads(done.stdout)}


def needs(*tools: str) -> None:
    beside = str(Path(sys.executable).parent)
    for tool in tools:
        if not (shutil.which(tool, path=beside) or shutil.which(tool)):
            pytest.skip(f"no {tool}")


def test_the_same_files_are_the_same_bytes_whatever_the_umask_the_clock_and_the_user(tmp_path: Path) -> None:
    forms = ("tar.gz", "tar.zst", "zip")
    needs("zstd")
    one = packed(project(tmp_path / "a/hello"), *forms, umask=0o022, clock=1_700_000_000)
    other = project(tmp_path / "b/elsewhere")
    for path in other.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    user = ""
    if os.geteuid() == 0 and os.access(ROOT, os.X_OK) and str(tmp_path).startswith("/tmp"):
        user = "nobody"
        for path in (tmp_path, *tmp_path.parents[:-2]):
            path.chmod(path.stat().st_mode | 0o011)
    two = packed(other, *forms, umask=0o077, clock=1_800_000_000, user=user)
    assert set(one) == {f"hello-web-1.2.0.{form}" for form in forms}
    assert one == two
    (other / "hello_web/__init__.py").write_text("changed\n")
    assert not set(packed(other, "zip", umask=0o022, clock=1, user=user).values()) & set(one.values())


def test_packages_of_the_system_and_wheels_are_the_same_bytes_too(tmp_path: Path) -> None:
    needs("nfpm", "uv")
    forms = ("deb", "rpm", "wheel")
    one = packed(project(tmp_path / "a/hello"), *forms, umask=0o022, clock=1_700_000_000)
    two = packed(project(tmp_path / "b/elsewhere"), *forms, umask=0o077, clock=1_800_000_000)
    assert set(one) == {"hello-web_1.2.0_all.deb", "hello-web-1.2.0-1.noarch.rpm", "hello_web-1.2-py2.py3-none-any.whl"}
    assert one == two


def test_an_archive_says_who_it_is_and_sha256sum_checks_it(tmp_path: Path) -> None:
    root = project(tmp_path / "hello")
    (root / "new.txt").write_text("not committed")
    artifact = artifact_of(select(root), "", "")
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout
    assert artifact.about == About("hello-web", "1.2.0+dirty", head.strip(), True, 1770091506)
    with tarfile.open(write(artifact, "tar.gz", tmp_path)) as archive:
        members = archive.getmembers()
        assert {(info.uid, info.gid, info.uname, info.mtime) for info in members} == {(0, 0, "", 1770091506)}
        modes = {info.name.partition("/")[2]: info.mode for info in members}
        assert (modes["bin/serve"], modes["Procfile"]) == (0o755, 0o644) and "new.txt" in modes
        archive.extractall(tmp_path / "out")
    place = tmp_path / "out/hello-web-1.2.0+dirty"
    subprocess.run(["sha256sum", "--check", "--quiet", "--strict", ".artifact/SHA256SUMS"], cwd=place, check=True)
    about = json.loads((place / ".artifact/about.json").read_text())
    assert about["sums"] == hashlib.sha256((place / ".artifact/SHA256SUMS").read_bytes()).hexdigest()
    assert (place / "current").is_symlink()
    # What it was unpacked to is packed without what the artifact before said of itself.
    assert ".artifact/about.json" not in [item.path for item in artifact_of(select(place), "x1", "1").items]
    with zipfile.ZipFile(write(artifact, "zip", tmp_path)) as archive_:
        assert len(archive_.namelist()) == len(members)


def test_what_an_artifact_says_is_read_or_it_says_nothing() -> None:
    class Tree:
        def __init__(self, content: bytes | None) -> None:
            self.content = content

        def files(self) -> dict[str, str]:
            return {}

        def read(self, path: str) -> bytes | None:
            return self.content

    good = About("hello", "1.0", "ab" * 20, True, 1770091506)
    assert read(Tree(json.dumps(good.encode()).encode())) == good and good.ref == "abababab+changes"
    for bad in (None, b"{", b"[]", b"{}", json.dumps({**good.encode(), "name": "a\nb"}).encode(),
                json.dumps({**good.encode(), "dirty": 1}).encode(), json.dumps({**good.encode(), "commit": 7}).encode(),
                json.dumps({**good.encode(), "date": "now"}).encode(), json.dumps({**good.encode(), "date": -1}).encode()):  # fmt: skip
        assert read(Tree(bad)) is None


def test_a_version_follows_the_tags_and_a_bad_name_or_version_is_refused(tmp_path: Path) -> None:
    root = project(tmp_path / "hello")
    git = ["git", "-C", str(root)]
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "two"], check=True)
    assert artifact_of(select(root), "", "").about.version.startswith("1.2.0+1.g")
    subprocess.run([*git, "tag", "-d", "v1.2.0"], check=True, capture_output=True)
    assert artifact_of(select(root), "", "").about.version.startswith("0.0.0+g")
    for name, version in (("../x", ""), ("-x", ""), ("", "1 2"), ("", "v1"), ("", "1/2"), ("", "1\n")):
        with pytest.raises(Rejected, match="cannot be"):
            artifact_of(select(root), name, version)


def test_a_module_that_is_imported_and_not_shipped_is_named(tmp_path: Path) -> None:
    root = project(tmp_path / "hello", **{
        "hello_web/__init__.py": "from hello_web import local\nfrom . import beside\nimport os, json, lib.deep\n",
        "hello_web/local.py": "", "hello_web/beside.py": "", "lib/__init__.py": "", "lib/deep.py": "", "hello_web/not.py": "",
        "shipit.yml": "artifact: {exclude: [hello_web/local.py, hello_web/beside.py, lib/, hello_web/not.py]}\n",
    })  # fmt: skip
    found = forgotten(select(root))
    assert set(found) == {"hello_web/local.py", "hello_web/beside.py", "lib/__init__.py", "lib/deep.py"}
    assert set(found.values()) == {"hello_web/__init__.py"}


def test_an_artifact_holds_none_that_was_made_before(tmp_path: Path) -> None:
    root = project(tmp_path / "hello", **{"shipit.yml": "artifact: {include: [dist/]}\n", "dist/app.js": "built"})
    write(artifact_of(select(root), "", ""), "zip", root / "dist")
    kept = without(select(root), root / "dist")
    assert "dist/app.js" in kept.paths and not [path for path in kept.paths if path.endswith(".zip")]
    made = str(root / "dist/hello-web-1.2.0.zip")
    assert local(["deploy", made]) and local(["pack"]) and not local(["deploy", made + ".gone"])


def keypair(place: Path, name: str) -> tuple[str, str, str]:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / name], check=True)
    kind, blob, *_ = (place / f"{name}.pub").read_text().split()
    return name, kind, blob


def test_a_signature_is_verified_and_every_other_refused(tmp_path: Path) -> None:
    ann, bob = keypair(tmp_path, "ann"), keypair(tmp_path, "bob")
    path = tmp_path / "hello.zip"
    path.write_bytes(b"the artifact")
    assert signature_of(path) == ""
    sign(path, str(tmp_path / "ann"))
    signature = signature_of(path)
    with path.open("rb") as file:
        assert verified(file, signature, [bob, ann]) == "ann"
        assert file.read() == b"the artifact", "whoever reads it next finds it from its beginning"
        with pytest.raises(Denied, match="not of a key"):
            verified(file, signature, [bob])
        for bad in ("", "x", "AAAA", base64.b64encode(b"-----BEGIN SSH SIGNATURE-----\nAAAA").decode(), signature * 40):
            with pytest.raises((Rejected, Denied)):
                verified(file, bad, [ann])
    path.write_bytes(b"another one")
    with path.open("rb") as file, pytest.raises(Denied, match="not what was signed"):
        verified(file, signature, [ann])
    # One that was made for something else.
    subprocess.run(["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", tmp_path / "ann", path], check=True,
                   stdin=subprocess.DEVNULL, capture_output=True)  # fmt: skip
    path.with_name("hello.zip.sig").unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-Y", "sign", "-n", "git", "-f", tmp_path / "ann", path], check=True, capture_output=True
    )
    with path.open("rb") as file, pytest.raises(Denied):
        verified(file, signature_of(path), [ann])


def test_nothing_of_a_command_is_the_units_to_replace() -> None:
    assert quoted('exec x "$A" 50% \\') == '"exec x \\"$$A\\" 50%% \\\\"'
    text = unit(About("blog", "1"), "worker", "python -m worker", "/usr/share/blog")
    assert 'ExecStart=/bin/sh -c "exec python -m worker"\nWorkingDirectory=/usr/share/blog\n' in text
