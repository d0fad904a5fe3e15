"""Killed anywhere, what serves is the old release or the new one, whole; nothing is left to clear away by hand."""

from __future__ import annotations

import json
import signal
import time

import pytest
from host.apps import asked, branch_at_server, build, files, live, newest, pushed, say, until_body, unwell
from lab.background import wait_for
from lab.client import Client, Repo
from lab.host import Host

from faults.points import dying_at, others
from receiver.model import decode_app_state, decode_release
from receiver.story.checkpoint import NAMES

PROCFILE = "web: python main.py --at $SOCKET\nrelease: true\n"


@pytest.fixture(scope="module")
def victim(laptop: Client) -> Repo:
    return pushed(laptop, "victim", "start", procfile=PROCFILE)


def ledger_decodes(host: Host, app: str) -> None:
    """Every record is whole, and the link points at one that was built."""
    releases = f"/var/lib/shipit/apps/{app}/releases"
    names = host.sh(f"cd {releases} && ls -d v*/release.json").out.split()
    for name in names:
        decode_release(host.read(f"{releases}/{name}").encode())
    decode_app_state(host.read(f"{releases}/app.json").encode())
    current = host.sh(f"readlink {releases}/current").out.strip()
    slug = json.loads(host.read(f"{releases}/{current}/release.json"))["slug"]
    assert host.exists(f"/var/lib/shipit/apps/{app}/slugs/v{slug}/mark")


def test_the_environment_kills_the_worker_and_without_it_nothing_dies(
    shared_host: Host, laptop: Client, victim: Repo
) -> None:
    """The proof that the tests below kill anything at all."""
    victim.commit({"mark": "proof\n"})
    with dying_at(shared_host, "healthy"):
        killed = victim.push()
    assert killed.code != 0
    assert "died half way" in killed.text, str(killed)
    assert victim.push().code == 0
    assert laptop.get("victim").body == "proof"


@pytest.mark.parametrize("checkpoint", NAMES)
def test_a_worker_killed_at(checkpoint: str, shared_host: Host, laptop: Client, victim: Repo) -> None:
    before, was = laptop.get("victim").body, live(laptop, "victim")
    mark = f"{checkpoint}-{time.monotonic_ns()}"
    victim.commit({"mark": mark + "\n"})
    with laptop.load("victim", threads=4, pause=0.01) as load:
        with dying_at(shared_host, checkpoint):
            killed = victim.push()
        ledger_decodes(shared_host, "victim")
        served = laptop.get("victim").body
        past = checkpoint in ("committed", "announced", "retired")
        assert served == (mark if past else before)
        assert (live(laptop, "victim") != was) is past
        assert (killed.code == 0) is past, f"the verdict is whether the release is live:\n{killed}"
        assert branch_at_server(victim) == (victim.head if past else victim.git("rev-parse", "HEAD~1").out.strip())
        again = victim.push()
        assert again.code == 0, f"the same push did not work afterwards:\n{again}"
        assert laptop.get("victim").body == mark
        if past:
            # There was nothing left to push; the next change clears away what was left.
            victim.commit({"mark": mark + "-next\n"})
            assert victim.push().code == 0
            mark += "-next"
        assert laptop.get("victim").body == mark
    report = load.stop()
    assert report.failed == 0, str(report)
    wait_for(
        "one release to be left running",
        lambda: {row["release"] for row in asked(laptop, "ps", "victim")} == {live(laptop, "victim")},
    )
    assert unwell(shared_host) == []
    assert not shared_host.run("pgrep", "-u", "build-victim", check=False).ok


def pid_of(host: Host, pattern: str) -> str:
    """The newest process whose command line holds this."""
    return wait_for(pattern, lambda: others(host, pattern))[-1]


def slow_push(laptop: Client, app: str, seconds: float) -> Repo:
    """A live app whose next push, of the mark `two`, builds so long."""
    repo = pushed(laptop, app, "one", procfile=PROCFILE)
    repo.commit({"mark": "two\n", "shipit.yml": build(f"echo it builds; sleep {seconds}")})
    return repo


def test_a_killed_agent_fails_the_push_and_leaves_no_build(shared_host: Host, laptop: Client) -> None:
    repo = slow_push(laptop, "agentless", 5)
    with laptop.load("agentless", threads=2, pause=0.02) as load:
        push = repo.start_push()
        wait_for("the build", lambda: "it builds" in push.so_far())
        shared_host.run("kill", "-9", pid_of(shared_host, "libexec/agent"))
        result = push.wait(30)
        assert result.code != 0, str(result)
        assert "Traceback" not in result.text
        assert "v1 is still serving" in result.text
        wait_for(
            "the build to be gone",
            lambda: not shared_host.run("pgrep", "-u", "build-agentless", check=False).ok,
            timeout=10,
        )
        assert laptop.get("agentless").body == "one"
        again = repo.push()
        assert again.code == 0, str(again)
    assert load.stop().failed == 0
    assert laptop.get("agentless").body == "two"
    assert unwell(shared_host) == []


@pytest.mark.parametrize("program", ["libexec/gateway", "git receive-pack", "session"])
def test_a_deploy_goes_on_without_its(program: str, shared_host: Host, laptop: Client) -> None:
    """`session`: all of it at once, as logind does with KillUserProcesses=yes."""
    app = "without-" + program.rpartition(" ")[2].rpartition("/")[2]
    repo = slow_push(laptop, app, 2)
    with laptop.load(app, threads=2, pause=0.02) as load:
        push = repo.start_push()
        wait_for("the build", lambda: "it builds" in push.so_far())
        if program == "session":
            gateway = pid_of(shared_host, "libexec/gateway [a-z]")
            scope = shared_host.read(f"/proc/{gateway}/cgroup").strip().rpartition("/")[2]
            assert scope.startswith("session-")
            shared_host.run("systemctl", "kill", "--signal=SIGKILL", scope)
        else:
            shared_host.run("kill", "-9", pid_of(shared_host, program))
        result = push.wait(30)
        assert result.code != 0, "nobody can tell this client that it went well"
        until_body(laptop, app, "two")
    assert load.stop().failed == 0
    wait_for("the release to be live", lambda: newest(laptop, app)["status"] == "live")
    again = repo.push()
    assert again.code == 0, str(again)
    assert branch_at_server(repo) == repo.head
    assert newest(laptop, app)["release"] == "v2", "what is live needs no deploy"
    assert unwell(shared_host) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill -9"])
def test_a_deploy_goes_on_when_its_client_goes_away_by(
    number: signal.Signals, shared_host: Host, laptop: Client
) -> None:
    app = f"client-{number.name.lower()}"
    repo = pushed(laptop, app, "one", procfile=PROCFILE)
    # More than a pipe holds: whoever relays it must not block when nobody reads it any more.
    chatter = "echo it builds; sleep 1; head -c 400000 /dev/zero | tr '\\0' x | fold -w 100; sleep 1; echo last words"
    repo.commit({"mark": "two\n", "shipit.yml": build(chatter)})
    push = repo.start_push()
    wait_for("the build", lambda: "it builds" in push.so_far())
    assert f"releases:output {app} -f" in push.so_far(), "how to watch is said before it is needed"
    push.kill(number)
    assert push.wait(10).code != 0
    watched = say(laptop, "releases:output", app, "-f")
    assert watched.code == 0
    assert "last words" in watched.out
    assert laptop.get(app).body == "two"
    again = repo.push()
    assert again.code == 0, str(again)
    assert newest(laptop, app)["release"] == "v2"
    wait_for("nobody to be left", lambda: not shared_host.run("pgrep", "-f", "git receive-pack", check=False).ok)


def test_a_client_killed_while_it_waits_its_turn_deploys_nothing(shared_host: Host, laptop: Client) -> None:
    repo = slow_push(laptop, "waiter", 2)
    first = repo.start_push()
    wait_for("the build", lambda: "it builds" in first.so_far())
    repo.commit({"mark": "three\n"})
    second = repo.start_push()
    wait_for("the second to wait", lambda: "Waiting for v2" in second.so_far())
    second.kill()
    assert first.wait().code == 0
    assert laptop.get("waiter").body == "two"
    assert newest(laptop, "waiter")["release"] == "v2"


def test_of_three_pushes_at_once_one_waits_and_the_newest_wins(shared_host: Host, laptop: Client) -> None:
    repo = slow_push(laptop, "crowd", 3)
    repo.commit({"mark": "three\n", "shipit.yml": None})
    repo.commit({"mark": "four\n"})
    with laptop.load("crowd", threads=2, pause=0.02) as load:
        first = repo.start_push(ref="HEAD~2:main")
        wait_for("the build", lambda: "it builds" in first.so_far())
        second = repo.start_push(ref="HEAD~1:main")
        wait_for("the second to wait", lambda: "Waiting for v2 by" in second.so_far())
        third = repo.start_push(ref="HEAD:main")
        superseded = second.wait()
        assert superseded.code != 0
        assert "Superseded by a newer push" in superseded.text
        assert first.wait().code == 0
        last = third.wait()
        assert last.code == 0, str(last)
    report = load.stop()
    assert report.failed == 0, str(report)
    assert set(report.by_body) == {"one", "two", "four"}
    assert [row["status"] for row in asked(laptop, "releases", "crowd")] == ["live", "superseded", "superseded"]
    assert branch_at_server(repo) == repo.head


def test_two_apps_are_pushed_at_once_without_waiting_for_each_other(laptop: Client) -> None:
    one, two = slow_push(laptop, "left", 3), slow_push(laptop, "right", 3)
    pushes = [one.start_push(), two.start_push()]
    wait_for("both to build", lambda: all("it builds" in push.so_far() for push in pushes))
    assert [push.process.poll() for push in pushes] == [None, None], "they did not build at the same time"
    results = [push.wait() for push in pushes]
    assert [result.code for result in results] == [0, 0]
    assert not any("Waiting for" in result.text for result in results)


def test_eight_pushes_in_a_row_end_with_the_newest_and_no_outage(laptop: Client) -> None:
    repo = pushed(laptop, "hasty", "0", procfile=PROCFILE)
    with laptop.load("hasty", threads=2, pause=0.02) as load:
        pushes = []
        for number in range(1, 9):
            repo.commit({"mark": f"{number}\n"})
            pushes.append(repo.start_push(ref=f"{repo.head}:main"))
            # Which is the newest is decided in the queue: whoever says something is there.
            wait_for("the push to be there", lambda: pushes[-1].so_far() or pushes[-1].process.poll() is not None)
        results = [push.wait() for push in pushes]
    report = load.stop()
    assert report.failed == 0, str(report)
    assert results[-1].code == 0, results[-1]
    assert all(result.code == 0 or "Superseded" in result.text for result in results)
    assert laptop.get("hasty").body == "8"
    assert branch_at_server(repo) == repo.head


def test_a_crash_loop_does_not_hinder_the_fix(laptop: Client) -> None:
    repo = laptop.repo("loops", files("one", "web: exit 1 # $SOCKET\n"))
    for _ in range(3):
        repo.commit({}, "still broken")
        assert repo.push().code != 0
    repo.commit(files("mended"))
    assert repo.push().code == 0
    assert laptop.get("loops").body == "mended"
