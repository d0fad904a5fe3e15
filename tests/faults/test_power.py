"""The power fails at a checkpoint: what nobody had synced is lost, and yet the old release or the new one is whole.

By default at some checkpoints; SHIPIT_TEST_MATRIX=1 tries all of them, and more moments of an upgrade.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from host.apps import asked, branch_at_server, live, pushed, unwell
from lab import snapshot, tree
from lab.background import Background, wait_for
from lab.client import Client, Repo
from lab.host import Host

from faults.points import held_at, wait_until_held
from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.story.checkpoint import NAMES

pytestmark = [pytest.mark.host, pytest.mark.slow, pytest.mark.xdist_group("power")]

EVERY = bool(os.environ.get("SHIPIT_TEST_MATRIX"))
PAST = ("committed", "announced", "retired")
IN_A_DEPLOY = NAMES if EVERY else ("healthy", "committed")
IN_A_ROLLBACK = [n for n in NAMES if n not in ("unpacking", "built")] if EVERY else ("committed",)
# Of an upgrade: the step that install.sh has begun, and seconds after that.
IN_AN_UPGRADE = [("version", 0.5), ("version", 3.0), ("accounts", 0.0), ("proxy", 0.0), ("services", 0.0),
                 ("services", 0.3)] if EVERY else [("services", 0.1)]  # fmt: skip


@pytest.fixture(scope="module")
def durable() -> Iterator[Host]:
    """A server with a disk of its own, where only what was synced survives."""
    with Host.boot(snapshot.installed_tree(tree.SUITE), "durable", own_disk=True) as machine:
        machine.sh("sync")
        yield machine


@pytest.fixture(scope="module")
def laptop(durable: Host, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(durable, tmp_path_factory.mktemp("laptop"), key=snapshot.admin_key())


@pytest.fixture(scope="module")
def repo(laptop: Client) -> Repo:
    return pushed(laptop, "power", "start", procfile="web: python main.py --at $SOCKET\nrelease: true\n")


def cut(host: Host, laptop: Client, checkpoint: str, change: Background) -> str:
    """The power fails when the worker comes to its checkpoint; what the site answers after it came back."""
    assert wait_until_held(host, change), change.so_far()
    ledger = Ledger(Layout(host.root).app(AppName("power")))
    recorded = {release.number for release in ledger.releases()}
    host.power_cut()
    change.kill()
    change.wait()
    wait_for("the site to answer", lambda: answers(laptop))
    assert unwell(host) == [], "nothing needs to be done by hand"
    lost = recorded - {release.number for release in ledger.releases()}
    # Its name is made to last while its processes load, and nobody counts on it before.
    assert lost <= ({max(recorded)} if checkpoint == "opened" else set()), "a record is lost"
    assert {row["release"] for row in asked(laptop, "ps", "power")} == {live(laptop, "power")}
    return laptop.get("power").body


def answers(laptop: Client) -> bool:
    try:
        return laptop.get("power", timeout=5).status == 200
    except OSError:
        return False


@pytest.mark.parametrize("checkpoint", IN_A_DEPLOY)
def test_the_power_fails_in_a_deploy(checkpoint: str, durable: Host, laptop: Client, repo: Repo) -> None:
    before, mark = laptop.get("power").body, f"cut-{checkpoint}"
    repo.commit({"mark": mark + "\n"})
    with held_at(durable, checkpoint):
        after = cut(durable, laptop, checkpoint, repo.start_push())
    assert after == (mark if checkpoint in PAST else before)
    again = repo.push()
    assert again.code == 0, str(again)
    assert laptop.get("power").body == mark
    assert branch_at_server(repo) == repo.head


@pytest.mark.parametrize("checkpoint", IN_A_ROLLBACK)
def test_the_power_fails_in_a_rollback(checkpoint: str, durable: Host, laptop: Client, repo: Repo) -> None:
    repo.commit({"mark": f"before-{checkpoint}\n"})
    assert repo.push().code == 0
    was = live(laptop, "power")
    repo.commit({"mark": f"gone-from-{checkpoint}\n"})
    assert repo.push().code == 0
    with held_at(durable, checkpoint):
        after = cut(durable, laptop, checkpoint, laptop.start_ssh("rollback", "power", was))
    back, here = f"before-{checkpoint}", f"gone-from-{checkpoint}"
    assert after == (back if checkpoint in PAST else here)
    rolled = laptop.ssh("rollback", "power", was)
    assert rolled.code == 0, str(rolled)
    assert laptop.get("power").body == back
    assert repo.push().code == 0
    assert laptop.get("power").body == here


@pytest.mark.parametrize(("step", "seconds"), IN_AN_UPGRADE)
def test_the_power_fails_in_an_upgrade(step: str, seconds: float, durable: Host, laptop: Client, repo: Repo) -> None:
    """What is installed is the old version or the new one, whole; apps serve; install.sh, run again, ends it."""
    body = laptop.get("power").body
    durable.sh(f"echo '# {step} {seconds}' >>/root/shipit/receiver/__init__.py; sync")
    with laptop.load("power", threads=2, pause=0.02) as load:
        upgrade = durable.start("cd /root/shipit && exec ./install.sh")
        wait_for(f"the step {step}", lambda: step in upgrade.so_far() or upgrade.process.poll() is not None, timeout=90)
        time.sleep(seconds)
        report = load.stop()
    assert report.failed == 0, "apps do not notice an upgrade"
    durable.power_cut()
    upgrade.kill()
    upgrade.wait()
    wait_for("the site to answer", lambda: answers(laptop))
    assert laptop.get("power").body == body
    assert unwell(durable) == [], "what is there is whole"
    repo.commit({"mark": f"after-{step}-{seconds}\n"})
    assert repo.push().code == 0
    durable.install(key=False)
    assert unwell(durable) == []
    said = durable.sh("tail -n1 /usr/lib/shipit/current/lib/python3*/site-packages/receiver/__init__.py").out
    assert said == f"# {step} {seconds}\n", "the new version is in force"
    repo.commit({"mark": f"with-{step}-{seconds}\n"})
    assert repo.push().code == 0
    assert laptop.get("power").body == f"with-{step}-{seconds}"
