"""A full disk: the push fails and says so, what serves goes on serving, and with room again the same push works."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from host.apps import asked, build, live, pushed, say, unwell
from lab.client import Client, Repo
from lab.host import Host

from faults.points import go_on, held_at, wait_until_held
from receiver.ledger.ledger import Ledger
from receiver.model import decode_release
from receiver.names import AppName
from receiver.paths import Layout
from receiver.story.checkpoint import NAMES

SETTINGS = "/etc/shipit/shipit.yml"
# What there is none of any more. SHIPIT_TEST_MATRIX=1 tries both at every checkpoint.
LACKING = ("blocks", "inodes")
CASES = list(itertools.product(NAMES, LACKING)) if os.environ.get("SHIPIT_TEST_MATRIX") else [
    ("opened", "blocks"), ("unpacking", "inodes"), ("built", "blocks"), ("healthy", "inodes"), ("committed", "blocks"),
]  # fmt: skip
FILL = {
    "blocks": "cat /dev/zero >{}/ballast",
    "inodes": "mkdir -p {0}; i=0; while : >{0}/$((i++)); do :; done",
}


@contextmanager
def small_disk(host: Host, app: str, size: int, inodes: int = 0) -> Iterator[None]:
    """The app's directory on a file system of its own of so many MiB, which may be filled to the last one."""
    place = f"/var/lib/shipit/apps/{app}"
    before = host.read(SETTINGS)
    kept = [line for line in before.splitlines() if not line.startswith("min_free")]
    host.write(SETTINGS, "\n".join([*kept, "min_free: 1"]) + "\n")
    own = f"/mnt/{app}"
    host.sh(
        f"set -e; mkdir {own}; mount -t tmpfs -o size={size}m,nr_inodes={inodes},mode=755 small {own};"
        f"cp -a {place}/. {own}/; mount --bind {own} {place}"
    )
    try:
        yield
    finally:
        host.write(SETTINGS, before)


def test_a_push_to_a_nearly_full_server_is_refused_before_anything_is_built(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "tight", "one")
    settings = shared_host.read(SETTINGS)
    repo.commit({"mark": "two\n"})
    shared_host.write(SETTINGS, settings.rstrip("\n") + "\nmin_free: 100000000\n")
    try:
        result = repo.push()
    finally:
        shared_host.write(SETTINGS, settings)
    assert result.code != 0
    assert "disk of the server is nearly full" in result.remote, str(result)
    assert [row["release"] for row in asked(laptop, "releases", "tight")] == ["v1"]
    assert laptop.get("tight").body == "one"
    assert repo.push().code == 0


def test_a_build_that_fills_the_disk_fails_and_its_space_is_free_again(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "full", "one")
    with small_disk(shared_host, "full", 40):
        repo.commit({"mark": "two\n", "shipit.yml": build("cat /dev/zero > big")})
        with laptop.load("full", threads=2, pause=0.02) as load:
            result = repo.push()
            assert result.code != 0, str(result)
            assert "No space left on device" in result.remote, str(result)
            assert "v1 is still serving" in result.remote, str(result)
            assert "Traceback" not in result.text
            assert live(laptop, "full") == "v1"
            free = int(shared_host.sh("df --output=avail -m /var/lib/shipit/apps/full | tail -1").out)
            assert free > 20, "the failed build still takes its space"
            releases = "/var/lib/shipit/apps/full/releases"
            assert decode_release(shared_host.read(f"{releases}/v2/release.json").encode()).status.value == "failed"
            repo.commit({"shipit.yml": None})
            again = repo.push()
            assert again.code == 0, str(again)
        assert load.stop().failed == 0
        assert laptop.get("full").body == "two"


def test_with_no_byte_left_nothing_is_damaged(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "brim", "one")
    with small_disk(shared_host, "brim", 40):
        shared_host.sh("cat /dev/zero >/var/lib/shipit/apps/brim/data/ballast", check=False)
        repo.commit({"mark": "two\n"})
        with laptop.load("brim", threads=2, pause=0.02) as load:
            result = repo.push()
            changed = say(laptop, "config:set", "brim", "A=1")
        assert load.stop().failed == 0
        for told in (result, changed):
            assert told.code != 0, str(told)
            assert "Traceback" not in told.text, str(told)
        assert "disk" in result.text.lower() or "space" in result.text.lower(), str(result)
        assert "disk" in changed.text.lower() or "space" in changed.text.lower(), changed
        assert live(laptop, "brim") == "v1"
        shared_host.run("rm", "/var/lib/shipit/apps/brim/data/ballast")
        again = repo.push()
        assert again.code == 0, str(again)
        assert laptop.get("brim").body == "two"
        assert say(laptop, "config:set", "brim", "A=1").code == 0
        assert unwell(shared_host) == []


@pytest.fixture(scope="module")
def cramped(shared_host: Host, laptop: Client) -> Iterator[Repo]:
    """A live app on a small disk."""
    repo = pushed(laptop, "cramped", "start", procfile="web: python main.py --at $SOCKET\nrelease: true\n")
    with small_disk(shared_host, "cramped", 40, inodes=20_000):
        yield repo


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "lack"), CASES)
def test_the_disk_is_full_from_a_checkpoint_on(
    checkpoint: str, lack: str, shared_host: Host, laptop: Client, cramped: Repo
) -> None:
    before, was, mark = laptop.get("cramped").body, live(laptop, "cramped"), f"{checkpoint}-{lack}"
    place = "/var/lib/shipit/apps/cramped/data/ballast"
    shared_host.run("rm", "-rf", place)
    cramped.commit({"mark": mark + "\n"})
    with laptop.load("cramped", threads=2, pause=0.02) as load:
        with held_at(shared_host, checkpoint):
            push = cramped.start_push()
            assert wait_until_held(shared_host, push), push.so_far()
            shared_host.sh(f"mkdir -p {place}; {FILL[lack].format(place)}", check=False)
            go_on(shared_host)
            result = push.wait()
        went_live = live(laptop, "cramped") != was
        assert laptop.get("cramped").body == (mark if went_live else before)
        assert (result.code == 0) is went_live, f"the verdict is whether the release is live:\n{result}"
        if not went_live:
            assert "disk of the server is full" in result.remote.lower(), str(result)
        assert "Traceback" not in result.text and "bug in shipit" not in result.text, str(result)
        Ledger(Layout(shared_host.root).app(AppName("cramped"))).releases()
        shared_host.run("rm", "-r", place)
        again = cramped.push()
        assert again.code == 0, str(again)
        assert laptop.get("cramped").body == mark
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_body) <= {before, mark}, str(report)
    shared_host.run("shipit", "doctor", "--fix", check=False)
    assert unwell(shared_host) == []
