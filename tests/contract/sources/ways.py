"""The table of all ways to ship, one class each: how an app's files are sent, and how the sending is broken off."""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from host.apps import MAIN, branch_at_server, say
from host.rpms import rpm
from host.test_laptop import shipit
from lab.base import Result, run
from lab.client import Client, Repo
from lab.host import Host

from contract.runtimes.samples import SERVE
from contract.sources import images

Files = Mapping[str, str]
WORKS = "worker: sleep 100000\n"


def app(mark: str, procfile: str = "web: python main.py --at $SOCKET\n", **more: str) -> Files:
    """An app that answers `mark`; of the mark `broken` it does not start."""
    if mark == "broken":
        procfile = "web: exit 3\n"
    return {"main.py": MAIN, "mark": mark + "\n", "Procfile": procfile, **more}


def mark_of(files: Files) -> str:
    return files["mark"].strip()


class Way(ABC):
    """How one source ships to one app. `kind` is what its releases say that they came by."""

    kind: str

    def __init__(self, laptop: Client, name: str) -> None:
        self.laptop, self.name = laptop, name

    @abstractmethod
    def ship(self, files: Files) -> Result:
        """Send these files, and no other, to be put live."""

    @abstractmethod
    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        """Begin to send them and break off, in several ways: each with what it is called. Nothing of them ever goes live."""

    def with_worker(self, mark: str) -> Files:
        """The app `mark` with a process type `worker` besides web."""
        return app(mark, "web: python main.py --at $SOCKET\n" + WORKS)


class ByStream(Way):
    """Of what is sent as one file, `ssh HOST deploy APP - < FILE`. `cuts`: of how many of its bytes the rest is missing."""

    @abstractmethod
    def packed(self, files: Files) -> bytes:
        """The file, made by the real tool."""

    def send(self, content: bytes) -> Result:
        return self.laptop.ssh(f"deploy {self.name} -", input=content)

    def ship(self, files: Files) -> Result:
        return self.send(self.packed(files))

    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        whole = self.packed(files)
        for kept in sorted({min(700, len(whole) // 3), len(whole) // 2, len(whole) - 40}):
            yield f"{kept} of {len(whole)} bytes", self.send(whole[:kept])


class ByGit(Way):
    kind = "git"
    repo: Repo | None = None

    def ship(self, files: Files) -> Result:
        if self.repo is None:
            self.repo = self.laptop.repo(self.name, dict(files))
        else:
            self.repo.commit(dict(files))
        return self.repo.push()

    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        assert self.repo
        yield from packs_cut(self.repo, {**files, "large": noise()}, "refs/heads/main", branch_at_server(self.repo))
        self.repo.git("reset", "--quiet", "--hard", "HEAD~1")


class ByFiles(Way):
    """`shipit deploy` in a directory, from a laptop."""

    kind = "files"
    repo: Repo | None = None

    def ship(self, files: Files) -> Result:
        if self.repo is None:
            self.repo = self.laptop.repo(self.name, {"README": "x\n"}, name=f"{self.name}-lies-here")
        self.repo.write(dict(files))
        return shipit(self.repo, "deploy", check=False)

    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        assert self.repo
        yield from packs_cut(self.repo, {**files, "large": noise()}, "refs/deploy/files", "0" * 40)
        self.repo.git("reset", "--quiet", "--hard", "HEAD~1")


class ByArchive(ByStream):
    """By tar, as people type it."""

    kind = "archive"

    def packed(self, files: Files) -> bytes:
        with tempfile.TemporaryDirectory() as scratch:
            write(Path(scratch) / f"{self.name}-1.0", files)
            return output("tar", "-C", scratch, "-cz", f"{self.name}-1.0")


class ByList(ByStream):
    """The toy (toy.py)."""

    kind = "list"

    def packed(self, files: Files) -> bytes:
        return json.dumps(files).encode()


class ByRsync(Way):
    kind = "rsync"

    def ship(self, files: Files) -> Result:
        directory = self.laptop.home / f"{self.name}-files"
        directory.mkdir(exist_ok=True)
        for path in directory.iterdir():
            if path.name not in files:
                path.unlink()
        write(directory, files)
        ssh = f"ssh -F {self.laptop.dir / 'config'}"
        where = f"{self.laptop.ip}:{self.name}/"
        return self.laptop.run("rsync", "-rlcz", "--delete", "-e", ssh, f"{directory}/", where, check=False)

    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        for sent in (b"", b"\x1f\0\0\0", b"\x1f\0\0\0half"):
            asked = f"rsync --server -rlcze.iLsfxCIvu --delete . {self.name}/"
            yield f"{len(sent)} bytes", self.laptop.ssh(asked, input=sent)


class ByPull(Way):
    """From a repository of the user `up` on the same server, with the app's own key."""

    kind = "pull"
    repo: Repo | None = None

    @property
    def url(self) -> str:
        return f"up@{self.laptop.ip}:{self.name}.git"

    def publish(self, files: Files) -> None:
        if self.repo is None:
            self.repo = self.laptop.repo(self.name, dict(files), name=f"{self.name}-up")
            self.begin(say(self.laptop, "git:generate-deploy-key", self.name, check=True).out)
        else:
            self.repo.commit(dict(files))
        self.repo.git("push", "--quiet", self.url, "main", check=True)

    def begin(self, key: str) -> None:
        home = "/home/up"
        keys = shlex.quote(f"{key}{self.laptop.public_key}\n")
        self.laptop.machine.sh(
            f"id up >/dev/null 2>&1 || useradd --create-home --shell /bin/sh up; install -d -o up -m 700 {home}/.ssh; "
            f"printf %s {keys} >> {home}/.ssh/authorized_keys; chown up {home}/.ssh/authorized_keys; "
            f"su up -c 'git init --quiet --bare --initial-branch=main {home}/{self.name}.git'",
            check=True,
        )
        say(self.laptop, "git:allow-host", self.name, self.laptop.ip, check=True)

    def ship(self, files: Files) -> Result:
        self.publish(files)
        return say(self.laptop, "git:sync", self.name, self.url, "main")

    def cut_short(self, files: Files) -> Iterator[tuple[str, Result]]:
        """Half of a commit is there: its files are missing. Then nothing is there."""
        self.publish(files)
        place = f"/home/up/{self.name}.git"
        objects = f"{place}/objects"
        self.laptop.machine.sh(f"cp -a {objects} {objects}.whole; find {objects} -type f -newer {place}/HEAD "
                               f"-size -2 -delete", check=True)  # fmt: skip
        yield "half of a commit", say(self.laptop, "git:sync", self.name)
        self.laptop.machine.sh(f"rm -r {objects}; mv {objects}.whole {objects}", check=True)
        with self.laptop.machine.without(place):
            yield "no repository", say(self.laptop, "git:sync", self.name)


class ByWheel(ByStream):
    """Of an archive, too: what it holds is a package."""

    kind = "archive"

    def packed(self, files: Files) -> bytes:
        return built_wheel(mark_of(files), "worker" in files["Procfile"])

    def with_worker(self, mark: str) -> Files:
        return app(mark, WORKS)


class ByDeb(ByWheel):
    def packed(self, files: Files) -> bytes:
        return built_deb(mark_of(files), "worker" in files["Procfile"])


class ByRpm(ByWheel):
    def packed(self, files: Files) -> bytes:
        return built_rpm(mark_of(files), "worker" in files["Procfile"])


class ByImage(ByStream):
    """An image that podman has built on the server itself, as somebody who has nothing to do with shipit."""

    kind = "image"
    made: ClassVar[dict[tuple[str, bool], bytes]] = {}

    def packed(self, files: Files) -> bytes:
        mark, worker = mark_of(files), "worker" in files["Procfile"]
        if (mark, worker) not in self.made:
            lines = ["CMD exit 3"] if mark == "broken" else ['LABEL shipit.process.worker="sleep 100000"'] * worker
            host = self.laptop.machine
            assert isinstance(host, Host)
            images.build(host, f"way:{len(self.made)}", mark, *lines)
            self.made[mark, worker] = images.saved(host, f"way:{len(self.made)}")
        return self.made[mark, worker]

    def with_worker(self, mark: str) -> Files:
        return app(mark, WORKS)


WAYS: tuple[type[Way], ...] = (
    ByGit, ByFiles, ByArchive, ByRsync, ByPull, ByList, ByWheel, ByDeb, ByRpm, ByImage,
)  # fmt: skip


def noise() -> str:
    """200 KiB that nothing makes smaller than half."""
    return os.urandom(100 * 1024).hex()


def packs_cut(repo: Repo, files: Files, ref: str, old: str) -> Iterator[tuple[str, Result]]:
    """Commit the files, and send what git would, up to every 64 KiB of it, and without its last byte."""
    new = repo.commit(dict(files))
    pack = subprocess.run(
        ["git", "pack-objects", "--quiet", "--revs", "--stdout"], cwd=repo.path, input=f"{new}\n".encode(), check=True,
        stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    line = f"{old} {new} {ref}\0 report-status\n".encode()
    whole = b"%04x%s0000%s" % (len(line) + 4, line, pack)
    for kept in (20, len(line), *range(2**16, len(whole), 2**16), len(whole) - 1):
        cut = repo.client.ssh(f"git-receive-pack {repo.app}", input=whole[:kept])
        yield f"{kept} of {len(whole)} bytes", cut


def write(directory: Path, files: Files) -> None:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)


def output(*words: str) -> bytes:
    return subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout


def serves(mark: str) -> str:
    """A program that answers `mark`."""
    if mark == "broken":
        return "raise SystemExit(3)\n"
    return SERVE.replace("open('mark', 'rb').read()", repr(f"{mark}\n".encode()))


PROJECT = """\
[project]
name = "hello"
version = "1.0"
[project.scripts]
hello = "hello:main"
{worker}
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[tool.setuptools]
py-modules = ["hello"]
"""


@functools.cache
def built_wheel(mark: str, worker: bool) -> bytes:
    """By `uv build`."""
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    with tempfile.TemporaryDirectory() as scratch:
        code = "\n".join(f"    {line}" for line in serves(mark).splitlines())
        write(Path(scratch), {
            "pyproject.toml": PROJECT.format(worker='worker = "hello:work"' if worker else ""),
            "hello.py": f"def main():\n{code}\n\ndef work():\n    import time\n    time.sleep(100000)\n",
        })  # fmt: skip
        run([uv, "build", "--quiet", "--wheel", "--out-dir", f"{scratch}/out", scratch], timeout=300)
        return next(Path(scratch, "out").glob("*.whl")).read_bytes()


@functools.cache
def built_deb(mark: str, worker: bool) -> bytes:
    """By `dpkg-deb`."""
    units = {"hello": "/usr/bin/python3 /usr/share/hello/serve.py"}
    if worker:
        units["hello-worker"] = "/bin/sleep 100000"
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch, "root")
        files = {
            "DEBIAN/control": "Package: hello\nVersion: 1.0\nArchitecture: all\nMaintainer: A <a@example.org>\n"
            "Depends: python3\nDescription: hello\n",
            "usr/share/hello/serve.py": serves(mark),
            **{
                f"usr/lib/systemd/system/{name}.service": f"[Service]\nExecStart={line}\n"
                for name, line in units.items()
            },
        }
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        root.chmod(0o755)
        output("dpkg-deb", "--root-owner-group", "--build", str(root), f"{scratch}/hello.deb")
        return Path(scratch, "hello.deb").read_bytes()


@functools.cache
def built_rpm(mark: str, worker: bool) -> bytes:
    """By `rpmbuild`."""
    unit = "/usr/lib/systemd/system/hello-worker.service"
    install = f"printf '[Service]\\nExecStart=/bin/sleep 100000\\n' > %{{buildroot}}{unit}" if worker else ""
    with tempfile.TemporaryDirectory() as scratch:
        return rpm(Path(scratch), serve=serves(mark), install=install, files=unit if worker else "")
