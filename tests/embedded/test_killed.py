"""Somebody is killed in the middle of a deploy where systemd does not run: old or new serves, the next push works."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from host.apps import build, files
from lab import snapshot, tree
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Box

# Who, and how to find them: a fork, which does the work, is younger than whom it comes from.
KILLED = {
    "worker": "pgrep -x shipit-worker",
    "agent": "pgrep -n -f libexec/agent",
    "gateway": "pgrep -o -f libexec/gateway",
    "who listens for agents": "pgrep -o -f libexec/agent",
    "supervisord": "cat /run/shipit/supervisord.pid",
}
pytestmark = pytest.mark.xdist_group("killed")


@pytest.fixture(scope="module")
def own_box() -> Iterator[Box]:
    with Box.boot(snapshot.installed_tree(tree.SUITE, box=True), "killed") as machine:
        machine.run("shipit-supervisord", "start")
        yield machine


@pytest.fixture(scope="module")
def laptop(own_box: Box, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(own_box, tmp_path_factory.mktemp("laptop"), key=snapshot.admin_key())


@pytest.fixture(scope="module")
def repo(laptop: Client) -> Repo:
    repo = laptop.repo("fate", files("start"))
    assert repo.push().code == 0
    return repo


@pytest.mark.parametrize("party", KILLED)
def test_killed_in_a_deploy_old_or_new_serves_and_the_next_push_works(
    party: str, own_box: Box, laptop: Client, repo: Repo
) -> None:
    before, mark = answer(laptop), party.replace(" ", "-")
    repo.commit({"mark": mark + "\n", "shipit.yml": build("echo it builds; sleep 2")})
    push = repo.start_push()
    wait_for("the build", lambda: "it builds" in push.so_far())
    own_box.run("kill", "-KILL", own_box.sh(KILLED[party]).out.strip())
    result = push.wait()
    wait_for("an answer", lambda: answer(laptop) in (before, mark), timeout=60)
    assert "Traceback" not in result.text, str(result)
    assert not re.search("journalctl|systemctl", result.text), str(result)
    if party == "worker":
        # What is told to be typed shows what was done, here too.
        look = re.search(r"administrator finds the cause with: ([^)\n]*)", result.text)
        assert look and '"verb": "git receive-pack"' in own_box.sh(look[1]).out, str(result)
    if result.code == 0:
        assert answer(laptop) == mark, str(result)
    if party == "gateway":
        wait_for("the deploy to end", lambda: answer(laptop) == mark)
    wait_for("the build to be gone", lambda: not own_box.run("pgrep", "-u", "build-fate", check=False).ok)
    repo.commit({"shipit.yml": None})
    again = repo.push()
    assert again.code == 0, str(again)
    assert answer(laptop) == mark

    def running() -> int:
        rows = json.loads(laptop.ssh("ps", "fate", "--format", "json").out)
        return len([row for row in rows if row["state"] == "running"])

    wait_for("one release to be left", lambda: running() == 1)
    found = own_box.run("shipit", "doctor", check=False)
    assert found.code == 0, str(found)


def answer(client: Client) -> str:
    """What the app says; nothing while nobody answers."""
    try:
        found = client.get("fate", timeout=5)
    except OSError:
        return ""
    return found.body if found.status == 200 else ""
