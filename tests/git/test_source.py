"""A release is exactly its commit (threat rows 16, 22, 23), with what the commit points at filled in."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from receiver.errors import HostFault, Rejected
from receiver.names import Branch, Oid
from receiver.sources.git import lfs, submodules
from receiver.sources.git.commits import Commits
from receiver.sources.git.overlay import archived
from receiver.sources.git.repository import Git
from receiver.system.run import find

ENV = {
    "PATH": os.environ["PATH"], "HOME": "/nonexistent", "GIT_CONFIG_NOSYSTEM": "1", "GIT_AUTHOR_NAME": "Ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org", "GIT_COMMITTER_NAME": "Ann", "GIT_COMMITTER_EMAIL": "ann@example.org",
    "GIT_ALLOW_PROTOCOL": "file",
}  # fmt: skip


def git(tree: Path, *words: str, input: bytes | None = None) -> str:
    done = subprocess.run(["git", *words], cwd=tree, env=ENV, input=input, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


class Work:
    """A work tree and the receiver's bare repository that its commits go to."""

    def __init__(self, where: Path) -> None:
        self.tree = where / "tree"
        self.tree.mkdir(parents=True)
        git(self.tree, "init", "-q", "-b", "main")
        self.source = Commits(where / "repo.git")
        self.source.create()

    def commit(self, message: str = "x") -> Oid:
        git(self.tree, "add", "-A")
        git(self.tree, "commit", "-q", "--allow-empty", "-m", message)
        git(self.tree, "push", "-q", "-f", str(self.source.git.repo), "HEAD:refs/heads/main")
        return Oid(git(self.tree, "rev-parse", "HEAD"))

    def unpacked(self, oid: Oid) -> dict[str, tuple[int, bytes]]:
        """Path → (mode, content or link target) of the archive."""
        with archived(self.source, oid) as stream:
            raw = os.fdopen(os.dup(stream.fileno()), "rb").read()
        found = {}
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                if not member.isdir():
                    file = tar.extractfile(member) if member.isfile() else None
                    found[member.name] = (member.mode, file.read() if file else member.linkname.encode())
        return found


@pytest.fixture
def work(tmp_path: Path) -> Work:
    return Work(tmp_path)


def test_the_archive_is_the_commit_whatever_the_attributes_say(work: Work) -> None:
    files = {
        ".gitattributes": b"secret export-ignore\nversion export-subst ident\n*.bat text eol=crlf\n*.u working-tree-encoding=UTF-16\n",
        "secret": b"1",
        "version": b"$Format:%H$ $Id$",
        "a.bat": b"one\ntwo\n",
        "run.sh": b"#!/bin/sh\n",
    }
    for name, raw in files.items():
        (work.tree / name).write_bytes(raw)
    (work.tree / "run.sh").chmod(0o777)
    (work.tree / "link").symlink_to("/etc/passwd")
    found = work.unpacked(work.commit())
    assert {name: raw for name, (_, raw) in found.items()} == {**files, "link": b"/etc/passwd"}
    assert found["run.sh"][0] == 0o755 and found["a.bat"][0] == 0o644


def test_a_tree_lists_files_and_links_to_them_and_reads_small_ones(work: Work) -> None:
    (work.tree / "big").write_bytes(b"x" * (2**20 + 1))
    (work.tree / "d").mkdir()
    (work.tree / "d/é\n").write_bytes(b"odd")
    (work.tree / "link").symlink_to("big")
    tree = work.source.tree(work.commit())
    assert set(tree.files()) == set(tree.entries()) == {"big", "d/é\n", "link"}
    assert tree.files()["link"] == tree.files()["big"], "a link counts as what it leads to"
    assert tree.read("d/é\n") == b"odd"
    assert tree.read("big") is None and tree.read("link") is None and tree.read("absent") is None
    assert tree.size() >= 2**20


def test_limits_stop_the_listing(work: Work) -> None:
    for i in range(20):
        (work.tree / f"f{i}").write_bytes(b"x" * 100)
    oid = work.commit()
    with pytest.raises(Rejected, match="more than 10 files"):
        Commits(work.source.git.repo).tree(oid, max_files=10).files()
    with pytest.raises(Rejected, match="larger"):
        Commits(work.source.git.repo).tree(oid, max_size=1999).files()


def test_a_commit_tells_author_and_subject_without_control_characters(work: Work) -> None:
    oid = work.commit("\x1b[31mRed \u202e café\n\nBody")
    commit = work.source.commit(oid)
    assert commit.author == "Ann <ann@example.org>"
    assert commit.subject.isprintable() and "café" in commit.subject and "Body" not in commit.subject
    latin = git(
        work.tree, "-c", "i18n.commitEncoding=iso-8859-1", "commit-tree", git(work.tree, "write-tree"), input=b"caf\xe9"
    )
    git(work.tree, "push", "-q", str(work.source.git.repo), f"{latin}:refs/heads/latin")
    assert work.source.commit(Oid(latin)).subject == "café"
    with pytest.raises(HostFault):
        work.source.commit(Oid("0" * 39 + "1"))


def test_history_is_what_came_since(work: Work) -> None:
    oids = [work.commit(f"c{i}") for i in range(4)]
    assert [c.subject for c in work.source.history(oids[3], oids[1])] == ["c3", "c2"]
    assert len(work.source.history(oids[3], None)) == 4
    assert len(work.source.history(oids[3], None, limit=2)) == 2


def test_a_branch_is_put_back_and_taken_away(work: Work) -> None:
    first, second = work.commit("1"), work.commit("2")
    main = Branch("main")
    assert work.source.branch(main) == second
    assert work.source.put_back(main, first) and work.source.branch(main) == first
    assert not work.source.put_back(main, first)
    work.source.git.run("pack-refs", "--all")
    assert work.source.branch(main) == first
    assert work.source.put_back(main, None) and work.source.branch(main) is None
    assert not work.source.put_back(main, None)


@pytest.mark.parametrize("lock", ["refs/heads/main.lock", "HEAD.lock"])
def test_a_lock_that_a_power_cut_left_is_in_no_pushs_way_where_the_branch_is_right(work: Work, lock: str) -> None:
    main, commit = Branch("main"), work.commit("1")
    (work.source.git.repo / lock).touch()
    assert not work.source.put_back(main, commit) and work.source.branch(main) == commit
    work.source.git.run("update-ref", "-d", "refs/heads/main")
    assert work.source.branch(main) is None


@pytest.mark.parametrize("left", ["an empty file", "refs/heads/main.lock", "HEAD.lock"])
def test_a_branch_that_a_power_cut_or_a_killed_git_broke_is_put_back(work: Work, left: str) -> None:
    main = Branch("main")
    first, second = work.commit("1"), work.commit("2")
    work.source.put_back(main, first)
    ref = work.source.git.repo / "refs/heads/main"
    if left == "an empty file":
        ref.write_bytes(b"")
    else:
        (work.source.git.repo / left).touch()
    assert work.source.put_back(main, second) and work.source.branch(main) == second
    ref.write_bytes(b"")
    assert work.source.put_back(main, None) and work.source.branch(main) is None
    assert not work.source.put_back(main, None)


def test_a_repository_configured_by_somebody_else_runs_nothing(work: Work, tmp_path: Path) -> None:
    """threat row 22: core.fsmonitor, a pager, an external diff in the repository's config."""
    oid = work.commit()
    ran = tmp_path / "ran"
    for name in ("core.fsmonitor", "core.pager", "diff.external", "tar.tar.command"):
        git(tmp_path, f"--git-dir={work.source.git.repo}", "config", name, f"touch {ran}")
    work.source.tree(oid).files()
    work.source.git.run("update-ref", "refs/heads/x", oid)
    assert not ran.exists()


def test_an_archive_that_nobody_reads_to_its_end_is_no_error_and_leaves_no_process(work: Work) -> None:
    (work.tree / "big").write_bytes(os.urandom(2**20))
    oid = work.commit()
    with archived(work.source, oid) as stream:
        os.read(stream.fileno(), 100)
    with pytest.raises(KeyError), archived(work.source, oid):
        raise KeyError


def test_an_archive_that_git_cannot_finish_is_an_error(work: Work) -> None:
    (work.tree / "f").write_bytes(b"y")
    oid = work.commit()
    blob = git(work.tree, "hash-object", "f")
    (work.source.git.repo / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(HostFault), archived(work.source, oid) as stream:
        os.fdopen(os.dup(stream.fileno()), "rb").read()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A submodule's repository at https://lib.test/: the network is replaced, the rest is real."""
    upstream = tmp_path / "upstream"
    (upstream / "inner").mkdir(parents=True)
    git(upstream / "inner", "init", "-q", "-b", "main")
    (upstream / "inner/deep.txt").write_text("deep")
    git(upstream / "inner", "add", "-A")
    git(upstream / "inner", "commit", "-q", "-m", "x")
    lib = upstream / "lib"
    lib.mkdir()
    git(lib, "init", "-q", "-b", "main")
    (lib / "lib.py").write_text("lib")
    gitlink(lib, "vendored/inner", "https://lib.test/inner", git(upstream / "inner", "rev-parse", "HEAD"))
    git(lib, "commit", "-q", "-m", "x")
    real = submodules.environment

    def local(config: dict[str, str], extra: dict[str, str]) -> dict[str, str]:
        rewritten = {f"url.{upstream}/.insteadOf": "https://lib.test/", "protocol.file.allow": "always"}
        return real({**config, **rewritten}, extra)

    monkeypatch.setattr(submodules, "environment", local)
    return lib


def gitlink(tree: Path, path: str, url: str, commit: str) -> None:
    with (tree / ".gitmodules").open("a") as file:
        file.write(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
    git(tree, "add", "-A")
    git(tree, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")


def commit_index(work: Work) -> Oid:
    git(work.tree, "commit", "-q", "-m", "with submodule")
    git(work.tree, "push", "-q", str(work.source.git.repo), "HEAD:refs/heads/main")
    return Oid(git(work.tree, "rev-parse", "HEAD"))


def test_submodules_are_filled_in_recursively(work: Work, library: Path) -> None:
    (work.tree / "app.py").write_text("app")
    gitlink(work.tree, "libs/lib", "https://lib.test/lib", git(library, "rev-parse", "HEAD"))
    oid = commit_index(work)
    found = {name: raw for name, (_, raw) in work.unpacked(oid).items()}
    assert found["app.py"] == b"app" and found["libs/lib/lib.py"] == b"lib"
    assert found["libs/lib/vendored/inner/deep.txt"] == b"deep"
    assert not list(work.source.git.repo.glob("overlay-*"))
    # The second time nothing is fetched: the place may be gone.
    library.rename(library.with_name("gone"))
    assert work.unpacked(oid).keys() == found.keys()


@pytest.mark.parametrize(
    "url",
    ["file:///etc", "/etc", "../lib", "ext::sh -c id", "git://x/y", "http://x/y", "--upload-pack=id", "-x:y",
     "ssh://-oProxyCommand=id/x", "ssh://a b/x", "https://x/\x01", "git@-x:y", "git@host:-y", "http.https://x"],
)  # fmt: skip
def test_only_https_and_ssh_are_fetched(url: str) -> None:
    with pytest.raises(Rejected):
        submodules.checked("lib", url)


@pytest.mark.parametrize(
    "url", ["https://github.com/a/b.git", "ssh://git@host:22/a", "git@github.com:a/b.git", "https://t:s@h/x"]
)
def test_https_and_ssh_are_fetched(url: str) -> None:
    assert submodules.checked("lib", url) == url


def test_passwords_in_a_url_are_not_shown() -> None:
    assert submodules.shown("https://user:hunter2@host/x") == "https://host/x"


def test_a_submodule_that_cannot_be_had_is_named(work: Work, library: Path) -> None:
    gitlink(work.tree, "lib", "https://lib.test/lib", "1" * 40)
    oid = commit_index(work)
    with (
        pytest.raises(Rejected, match="11111111 of the submodule 'lib' could not be fetched"),
        archived(work.source, oid),
    ):
        pass
    assert not list(work.source.git.repo.glob("overlay-*"))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 12345\n"


def test_lfs_pointers_are_named_instead_of_shipped(work: Work) -> None:
    (work.tree / ".gitattributes").write_text("*.png filter=lfs diff=lfs merge=lfs -text\n")
    (work.tree / "a.png").write_text(POINTER)
    with pytest.raises(Rejected, match=r"a\.png") as told, archived(work.source, work.commit()):
        pass
    assert "lfs.url" in told.value.hint


def test_a_text_about_lfs_is_not_a_pointer(work: Work) -> None:
    (work.tree / "a.png").write_text(POINTER)
    assert work.unpacked(work.commit())["a.png"][1] == POINTER.encode()


def test_git_is_given_no_environment_but_ours() -> None:
    env = Git(Path("/x")).env
    assert env["HOME"] == "/nonexistent" and env["GIT_CONFIG_NOSYSTEM"] == "1" and "GIT_DIR" not in env


class LfsServer(BaseHTTPRequestHandler):
    """The two calls of the LFS batch API that a download takes."""

    objects: ClassVar[dict[str, bytes]] = {}

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        host = f"http://127.0.0.1:{self.server.server_address[1]}"
        found = [
            {**o, "actions": {"download": {"href": f"{host}/{o['oid']}"}}} if o["oid"] in self.objects
            else {**o, "error": {"code": 404, "message": "not here"}}
            for o in asked["objects"]
        ]  # fmt: skip
        self._send("application/vnd.git-lfs+json", json.dumps({"objects": found}).encode())

    def do_GET(self) -> None:
        self._send("application/octet-stream", self.objects[self.path.removeprefix("/")])

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.skipif(find("git-lfs") is None, reason="git-lfs is not installed")
def test_lfs_files_are_fetched_from_the_server_that_the_commit_names(
    work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lfs, "_URL", re.compile("http://127.*"))
    content = os.urandom(50_000)
    oid = hashlib.sha256(content).hexdigest()
    LfsServer.objects = {oid: content}
    with ThreadingHTTPServer(("127.0.0.1", 0), LfsServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        (work.tree / ".lfsconfig").write_text(f'[lfs]\n\turl = "http://127.0.0.1:{server.server_address[1]}"\n')
        (work.tree / ".gitattributes").write_text("*.png filter=lfs diff=lfs merge=lfs -text\n")
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n"
        (work.tree / "a.png").write_text(pointer)
        (work.tree / "b.txt").write_text("plain")
        found = work.unpacked(work.commit())
        assert found["a.png"][1] == content and found["b.txt"][1] == b"plain"
        LfsServer.objects = {}
        (work.tree / "c.png").write_text(pointer.replace(oid, "b" * 64))
        with pytest.raises(Rejected, match=r"c\.png"), archived(work.source, work.commit()):
            pass
        server.shutdown()
