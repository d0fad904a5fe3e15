"""`rsync ./ HOST:APP/` as people type it, and what nobody would type, on one server."""

from __future__ import annotations

import os
import shlex
import time
from itertools import count

import pytest
from host.apps import MAIN, asked, branch_at_server, live, newest, say
from lab.background import Background, wait_for
from lab.base import Result
from lab.client import Client, Repo
from lab.host import Host

APPS = "/var/lib/shipit/apps"
NUMBERS = count(1)


def app(mark: str, procfile: str = "web: python main.py --at $SOCKET\n") -> dict[str, str]:
    return {"main.py": MAIN, "mark": mark + "\n", "Procfile": procfile}


class Directory:
    """On a laptop; `rsync` sends it to its app."""

    def __init__(self, laptop: Client, app: str, name: str = "one") -> None:
        self.laptop, self.app, self.path = laptop, app, laptop.home / f"dir-{app}-{name}"
        self.path.mkdir()
        laptop.ssh("true")

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def words(self, *options: str) -> list[str]:
        ssh = f"ssh -F {self.laptop.dir / 'config'}"
        to = f"{self.laptop.ip}:{self.app}/"
        return ["rsync", *(options or ("-az", "--delete")), "-e", ssh, f"{self.path}/", to]

    def rsync(self, *options: str) -> Result:
        return self.laptop.run(*self.words(*options), check=False)

    def mark(self, text: str) -> None:
        (self.path / "mark").write_text(text + "\n")


@pytest.fixture
def here(shared_host: Host, laptop: Client) -> Directory:
    """A directory, and an app that nobody has sent anything yet: of this test alone, in whichever order they run."""
    directory = Directory(laptop, f"synced-{next(NUMBERS)}")
    directory.write({**app("one"), "static/big.txt": "".join(f"line {n}\n" for n in range(200_000))})
    return directory


@pytest.fixture
def sent(here: Directory) -> Directory:
    """The same, and it is live."""
    first = here.rsync()
    assert first.code == 0, first
    return here


def test_a_directory_goes_live_and_only_what_changed_travels(
    here: Directory, laptop: Client, shared_host: Host
) -> None:
    first = here.rsync()
    assert first.code == 0 and "is live" in first.err, first
    assert laptop.get(here.app).body.strip() == "one"
    assert (newest(laptop, here.app)["source"], newest(laptop, here.app)["release"]) == ("rsync", "v1")
    same = here.rsync()
    assert same.code == 0 and "Nothing is different" in same.err and newest(laptop, here.app)["release"] == "v1", same
    here.mark("two")
    (here.path / "static/old.txt").write_text("x")
    changed = here.rsync("-az", "--delete", "--stats")
    assert changed.code == 0 and laptop.get(here.app).body.strip() == "two", changed
    sent = next(line for line in changed.out.splitlines() if line.startswith("Total bytes sent"))
    assert int(sent.split()[-1].replace(",", "")) < 2000, sent
    (here.path / "static/old.txt").unlink()
    assert here.rsync().code == 0
    slug = shared_host.sh(f"ls {APPS}/{here.app}/slugs/v3/static", check=True).out.split()
    assert slug == ["big.txt"]
    dry = here.rsync("-azn", "--delete")
    assert dry.code == 0 and "dry run" in dry.err and newest(laptop, here.app)["release"] == "v3"


def test_what_does_not_start_or_is_cut_off_changes_nothing(sent: Directory, laptop: Client, shared_host: Host) -> None:
    before = live(laptop, sent.app)
    sent.write({"Procfile": "web: exit 3\n"})
    failed = sent.rsync()
    assert failed.code == 100 and "was not made live" in failed.err and "still" in failed.err, failed
    assert live(laptop, sent.app) == before and laptop.get(sent.app).body.strip() == "one"
    sent.write(app("cut"))
    big = sent.path / "static/more.bin"
    big.write_bytes(os.urandom(30 * 2**20))
    for after in (0.7, 1.5, 3.0):
        running = Background(sent.words("-a", "--bwlimit=4m"), env=laptop.environment, cwd=laptop.home)
        time.sleep(after)
        running.kill()
        wait_for("the turn is free", lambda: shared_host.sh("pgrep -x rsync", check=False).code != 0)
        assert live(laptop, sent.app) == before and laptop.get(sent.app).body.strip() == "one"
    big.unlink()
    sent.mark("three")
    assert sent.rsync().code == 0 and laptop.get(sent.app).body.strip() == "three"
    repo = f"{APPS}/{sent.app}/repo.git"
    left = shared_host.sh(f"ls {repo} {repo}/rsync", check=True).out
    assert "received-" not in left and "work" not in left, left


def test_across_sources_and_two_at_once(sent: Directory, laptop: Client) -> None:
    pushed: Repo = laptop.repo(sent.app, app("pushed"))
    assert pushed.push().ok and laptop.get(sent.app).body.strip() == "pushed"
    at = branch_at_server(pushed)
    sent.mark("four")
    # What is live now has no static/big.txt: the tree begins as that, and rsync brings it again.
    assert sent.rsync().code == 0 and laptop.get(sent.app).body.strip() == "four" and branch_at_server(pushed) == at
    assert say(laptop, "rollback", sent.app).code == 0 and laptop.get(sent.app).body.strip() == "pushed"
    sent.mark("five")
    other = Directory(laptop, sent.app, "two")
    other.write(app("six"))
    both = [Background(d.words(), env=laptop.environment, cwd=laptop.home) for d in (sent, other)]
    ended = [one.wait(120) for one in both]
    assert all(one.code == 0 for one in ended), ended
    assert laptop.get(sent.app).body.strip() in ("five", "six")
    sources = [row["source"] for row in asked(laptop, "releases", sent.app)]
    assert sources[:2] == ["rsync", "rsync"]
    pushed.push("--force")
    back = say(laptop, "deploy", sent.app, "v1")
    assert back.code == 0 and laptop.get(sent.app).body.strip() == "one", back


def test_links_out_devices_and_setuid_are_refused_and_nothing_is_written_elsewhere(
    sent: Directory, laptop: Client, shared_host: Host
) -> None:
    before = live(laptop, sent.app)
    bad = Directory(laptop, sent.app, "bad")
    home = "/var/lib/shipit/home"
    keys = shared_host.sh(f"sha256sum {home}/keys.json {home}/.ssh/*; ls -A {home} {home}/.ssh", check=True).out

    def refused(why: str, *options: str) -> None:
        done = bad.rsync(*options)
        assert done.code != 0 and why in done.err and "Traceback" not in done.err, done
        assert live(laptop, sent.app) == before, done

    bad.write(app("bad"))
    link = bad.path / "out"
    for target in (home, "/etc/passwd", "../../../home", "../../../../home/.ssh"):
        link.symlink_to(target)
        refused("leads out of the tree")
        link.unlink()
    # First a link to a directory, then a file below its name: the link is replaced and never followed.
    link.symlink_to(home)
    refused("leads out of the tree")
    link.unlink()
    link.mkdir()
    (link / "authorized_keys").write_text("x")
    assert bad.rsync().code == 0 and laptop.get(sent.app).body.strip() == "bad"
    before = live(laptop, sent.app)
    link.chmod(0o2775)
    os.mkfifo(bad.path / "pipe")
    refused("is a device, a pipe or a socket")
    (bad.path / "pipe").unlink()
    tool = bad.path / "tool"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o4755)
    refused("set to run as another user")
    tool.chmod(0o755)
    (bad.path / "Mark").write_text("x")
    refused("differ by case only")
    (bad.path / "Mark").unlink()
    # Inside, a link is a link.
    (bad.path / "again").symlink_to("mark")
    secret = bad.path / "secret"
    secret.write_text("x")
    secret.chmod(0)
    assert bad.rsync().code == 0
    assert shared_host.sh(f"readlink {APPS}/{sent.app}/slugs/{live(laptop, sent.app)}/again").out.strip() == "mark"
    assert shared_host.sh(f"sha256sum {home}/keys.json {home}/.ssh/*; ls -A {home} {home}/.ssh", check=True).out == keys


def test_more_than_the_server_takes_is_cut_off(laptop: Client, sent: Directory, shared_host: Host) -> None:
    before = live(laptop, sent.app)
    settings = shared_host.read("/etc/shipit/shipit.yml")
    shared_host.write("/etc/shipit/shipit.yml", settings + "max_push: 2\nmax_files: 50\n")
    try:
        large = Directory(laptop, sent.app, "large")
        large.write(app("large"))
        (large.path / "big").write_bytes(os.urandom(3 * 2**20))
        assert large.rsync().code != 0 and live(laptop, sent.app) == before
        (large.path / "big").unlink()
        large.write({f"many/{n}": "x" for n in range(60)})
        done = large.rsync()
        assert done.code == 102 and "more than 50 files" in done.err, done
    finally:
        shared_host.write("/etc/shipit/shipit.yml", settings)
    assert live(laptop, sent.app) == before


def test_whoever_may_not_deploy_brings_nothing(laptop: Client, sent: Directory) -> None:
    for words in (
        f"rsync --server --sender -logDtpre.iLsfxCIvu . {sent.app}/",
        "rsync --server -logDtpre.iLsfxCIvu . ../x",
    ):
        done = laptop.ssh(shlex.quote(words)[1:-1])
        assert done.code == 2, done
