"""Everybody who takes part in a deploy, killed at every checkpoint of it: the site answers, the next push works.

By default those who only watch are killed one after the other in one deploy that is held at every checkpoint, and each
of the others at the checkpoint where it matters most. SHIPIT_TEST_MATRIX=1 tries each party at each checkpoint.
The worker itself is killed at all of them in test_kill.py.
"""

from __future__ import annotations

import itertools
import os

import pytest
from host.apps import branch_at_server, build, live, newest, pushed, say, unwell
from lab.background import Background, wait_for
from lab.client import Client, Repo
from lab.host import Host

from faults.points import go_on, held_at, wait_until_held
from faults.points import kill as kill_all
from receiver.story.checkpoint import NAMES

# Who, as pkill(1) finds them. `server`: all of the connection at once, as when sshd's whole session is ended.
KILLED = {
    "sshd's child": "^sshd: shipit@notty",
    "gateway": "libexec/gateway",
    "receive-pack": "receive-pack",
    "hook": "hooks/post-receive",
    "agent": "libexec/agent",
    "nginx's worker": "nginx: worker process",
    "nginx's master": "nginx: master process",
    "journald": "systemd-journald",
    "server side": "^sshd: shipit|libexec/gateway|receive-pack|hooks/post-receive",
}
PARTIES = ("client", *KILLED, "new process", "live process")
# Those without whom the deploy goes on to its end.
BYSTANDERS = ("client", "sshd's child", "gateway", "receive-pack", "hook", "journald", "server side", "live process")
CARRIERS = ("nginx's worker", "nginx's master", "new process", "live process")
EVERY = bool(os.environ.get("SHIPIT_TEST_MATRIX"))
CASES = list(itertools.product(NAMES, PARTIES)) if EVERY else [
    ("started", "agent"), ("started", "new process"), ("healthy", "live process"), ("committed", "nginx's worker"),
    ("announced", "nginx's master"),
]  # fmt: skip
PAST = ("committed", "announced", "retired")


@pytest.fixture(scope="module")
def repo(laptop: Client) -> Repo:
    return pushed(laptop, "fate", "start", procfile="web: python main.py --at $SOCKET\nrelease: true\n")


def kill(host: Host, laptop: Client, party: str, push: Background, was: str) -> None:
    if party == "client":
        push.kill()
    elif party in ("new process", "live process"):
        number = newest(laptop, "fate")["release"] if party == "new process" else was
        host.run("systemctl", "kill", "--signal=KILL", f"shipit-fate-web-{number}@*.service", check=False)
    else:
        kill_all(host, KILLED[party])


def test_who_only_watches_is_not_needed(shared_host: Host, laptop: Client, repo: Repo) -> None:
    """Held at every checkpoint; at each one more of them is killed, and the deploy goes on to its end."""
    was, before = live(laptop, "fate"), laptop.get("fate").body
    repo.commit({"mark": "alone\n"})
    watchers = iter(("hook", "receive-pack", "gateway", "sshd's child", "server side", "client", "journald"))
    with laptop.load("fate", threads=2, pause=0.02) as load, held_at(shared_host, "all"):
        push = repo.start_push()
        for checkpoint in NAMES:
            assert wait_until_held(shared_host, push), checkpoint
            assert laptop.get("fate").body == ("alone" if checkpoint in PAST else before), checkpoint
            if party := next(watchers, ""):
                kill(shared_host, laptop, party, push, was)
            go_on(shared_host)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_body) == {before, "alone"}, str(report)
    assert next(watchers, "") == "", "nobody was spared"
    again = repo.push()
    assert again.code == 0, str(again)
    assert "Everything up-to-date" in again.text, "what is live needs no deploy"
    assert unwell(shared_host) == []


def test_a_killed_builder_fails_the_push_and_says_so(shared_host: Host, laptop: Client, repo: Repo) -> None:
    before = laptop.get("fate").body
    repo.commit({"mark": "builder\n", "shipit.yml": build("echo it builds; sleep 60")})
    push = repo.start_push()
    wait_for("the build", lambda: "it builds" in push.so_far())
    shared_host.run("pkill", "-KILL", "-f", "libexec/builder")
    result = push.wait()
    assert result.code != 0 and "The build of" in result.remote and "still serving" in result.remote, str(result)
    assert laptop.get("fate").body == before
    assert not shared_host.run("pgrep", "-u", "build-fate", check=False).ok, "the build's processes go with it"
    repo.commit({"shipit.yml": None})
    assert repo.push().code == 0
    assert laptop.get("fate").body == "builder"


@pytest.mark.slow
@pytest.mark.parametrize(("checkpoint", "party"), CASES)
def test_killed_there_the_site_is_old_or_new_and_the_next_push_works(
    checkpoint: str, party: str, shared_host: Host, laptop: Client, repo: Repo
) -> None:
    was, before, mark = live(laptop, "fate"), laptop.get("fate").body, f"{checkpoint}-{party}".replace(" ", "-")
    repo.commit({"mark": mark + "\n"})
    with laptop.load("fate", threads=2, pause=0.02) as load:
        with held_at(shared_host, checkpoint):
            push = repo.start_push()
            assert wait_until_held(shared_host, push), push.so_far()
            held = laptop.get("fate").body
            assert held == (mark if checkpoint in PAST else before), "the switch is the commit, and nothing else is"
            kill(shared_host, laptop, party, push, was)
            go_on(shared_host)
            result = push.wait()
        wait_for("the site to answer", lambda: answers(laptop))
        after = laptop.get("fate").body
        assert after in ((mark,) if checkpoint in PAST else (before, mark))
        if party in BYSTANDERS:
            assert after == mark, f"the deploy did not go on:\n{result}"
        if result.code == 0:
            assert after == mark, f"the push was told that it is live:\n{result}"
        assert "Traceback" not in result.text
        again = repo.push()
        assert again.code == 0, str(again)
        assert laptop.get("fate").body == mark
        assert branch_at_server(repo) == repo.head
    report = load.stop()
    assert party in CARRIERS or report.failed == 0, str(report)
    bodies = {body for body in report.by_body if not body.startswith("<")}
    assert bodies <= {before, mark}, str(report)
    if unwell(shared_host):
        # There was nothing left to push; the next change clears away what was left.
        assert say(laptop, "ps:restart", "fate").code == 0
    wait_for("doctor to find nothing", lambda: not unwell(shared_host))
    assert not shared_host.run("pgrep", "-u", "build-fate", check=False).ok


def answers(laptop: Client) -> bool:
    try:
        return laptop.get("fate", timeout=5).status == 200
    except OSError:
        return False
