"""The operational capabilities on one machine: who is told of releases; what runs by the clock; limits."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import asked, doctor, files, pushed, say, unwell

HOOK = """\
import http.server, json
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open("/var/tmp/hooked", "a") as file:
            file.write(json.dumps({"body": body.decode(), **dict(self.headers)}) + "\\n")
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", 8099), Handler).serve_forever()
"""
NOTIFY = "notify: {webhook: HOOK, secret: HOOK_SECRET, command: 'cat >> $DATA_DIR/told'}\n"


@pytest.fixture
def hook(shared_host: Host) -> Iterator[None]:
    """A listener on the machine that an administrator has allowed."""
    shared_host.write("/var/tmp/hook.py", HOOK)
    shared_host.run("systemd-run", "--unit=hook", "python3", "/var/tmp/hook.py")
    before = shared_host.read("/etc/shipit/shipit.yml")
    shared_host.write("/etc/shipit/shipit.yml", before + "\nnotify: {allow: '127.0.0.1'}\n")
    yield
    shared_host.write("/etc/shipit/shipit.yml", before)
    shared_host.run("systemctl", "stop", "hook.service", check=False)


def hooked(host: Host, count: int) -> list[dict[str, Any]]:
    """What the webhook got, once that are `count` requests."""

    def got() -> list[str]:
        return host.sh("cat /var/tmp/hooked", check=False).out.splitlines()

    wait_for(f"{count} requests", lambda: len(got()) >= count, timeout=60)
    return [json.loads(line) for line in got()]


def test_who_wants_to_know_is_told_how_releases_end_and_no_push_waits_for_it(
    laptop: Client, shared_host: Host, hook: None
) -> None:
    repo = pushed(laptop, "tells", "one", shipit_yml=NOTIFY)
    assert say(laptop, "config:set", "tells", "HOOK=http://127.0.0.1:8099/", "HOOK_SECRET=s3cret").code == 0
    (first,) = hooked(shared_host, 1)
    assert first["X-Shipit-Signature-256"] == (
        "sha256=" + hmac.new(b"s3cret", first["body"].encode(), hashlib.sha256).hexdigest()
    )
    live = json.loads(first["body"])
    assert (live["event"], live["app"], live["change"]) == ("live", "tells", "config")

    repo.commit({"Procfile": "web: false\n"}, "broken")
    assert not repo.push(check=False).ok
    failed = json.loads(hooked(shared_host, 2)[1]["body"])
    assert (failed["event"], failed["title"]) == ("failed", "broken") and failed["reason"]
    told = "/var/lib/shipit/apps/tells/data/told"
    wait_for("the command", lambda: shared_host.sh(f"grep -c failed {told}", check=False).out.strip() == "1")
    assert shared_host.sh(f"stat -c %U {told}").out.strip() == "app-tells", "the app's own user ran it"

    # One that ends again and again is told behind the verdict, and once more by what looks at boot.
    repo.commit({"Procfile": "web: python main.py --at $SOCKET\nworker: sleep 0.3; exit 1\n"}, "a worker that ends")
    repo.commit({"shipit.yml": NOTIFY + "processes: {worker: {count: 1, healthcheck: {settle: 0}}}\n"}, "it")
    assert repo.push().ok
    live, crashed = (json.loads(got["body"]) for got in hooked(shared_host, 4)[2:])
    assert (live["event"], crashed["event"], crashed["process"]) == ("live", "crashed", "worker.1")
    shared_host.run("systemctl", "start", "shipit-reconcile.service")
    assert json.loads(hooked(shared_host, 5)[4]["body"])["event"] == "crashed"

    tested = say(laptop, "notify:test", "tells")
    assert tested.code == 0 and "ok    webhook   it answered 200" in tested.text, tested.text
    assert json.loads(hooked(shared_host, 6)[5]["body"])["event"] == "test"

    shared_host.run("systemctl", "stop", "hook.service")
    repo.commit(files("two", shipit_yml=NOTIFY), "two")
    repo.push()
    tested = say(laptop, "notify:test", "tells")
    assert tested.code == 1 and "FAIL  webhook   The webhook did not take it" in tested.text, tested.text


CLOCK = """\
notify: {on: [run-failed], command: 'cat >> $DATA_DIR/told; echo >> $DATA_DIR/told'}
processes:
  tick: {schedule: '*:*:0/2'}
  slow: {schedule: {at: '*:*:0/2', zone: UTC}}
  bad: {schedule: {at: '*:*:0/5', missed: true}}
"""
TIMED = """\
web: python main.py --at $SOCKET
tick: echo $SHIPIT_RELEASE $WORD >> $DATA_DIR/ticks
slow: echo $SHIPIT_RELEASE >> $DATA_DIR/begun; while ! [ -e $DATA_DIR/go ]; do sleep 0.1; done; echo $SHIPIT_RELEASE >> $DATA_DIR/done
bad: echo no luck; exit 3
cron1: 30 3 1 1 * echo happy new year
"""


def test_what_runs_by_the_clock_changes_with_the_release_and_no_run_is_killed_or_doubled(
    laptop: Client, shared_host: Host
) -> None:
    data = "/var/lib/shipit/apps/clock/data"

    def lines(name: str) -> list[str]:
        return shared_host.sh(f"cat {data}/{name}", check=False).out.splitlines()

    def timers() -> list[str]:
        listed = shared_host.sh("systemctl list-units --plain --no-legend --type=timer 'shipit-clock-*'").out
        return [line.split()[0] for line in listed.splitlines()]

    repo = pushed(laptop, "clock", "one", procfile=TIMED, shipit_yml=CLOCK)
    wait_for("a run of each", lambda: lines("ticks") and lines("begun") and lines("told"), timeout=60)
    assert lines("begun") == ["v1"], "a run that goes on is not doubled"
    told = json.loads(lines("told")[0])
    assert (told["event"], told["process"], told["reason"]) == (
        "run-failed",
        "bad.1",
        "it ended with exit code 3: no luck",
    )
    assert "no luck" in say(laptop, "logs", "clock", "-p", "bad").text

    # A config change is a release like a push: its runs have the new value, and the one under way goes on.
    assert say(laptop, "config:set", "clock", "WORD=hello").code == 0
    assert timers() == [f"shipit-clock-{kind}-v2@t1.timer" for kind in ("bad", "cron1", "slow", "tick")]
    wait_for("the new release's run", lambda: "v2 hello" in lines("ticks"))
    wait_for("a turn of the slow one", lambda: "an earlier run" in say(laptop, "logs", "clock", "-p", "slow").text)
    assert lines("begun") == ["v1"]
    refused = say(laptop, "cron:run", "clock", "slow")
    assert refused.code == 2 and "is under way already" in refused.text, refused.text
    repo.commit(files("two", TIMED, shipit_yml=CLOCK), "two")
    assert repo.push().ok
    listed = {row["process"]: row for row in asked(laptop, "cron:list", "clock")}
    assert listed["slow"]["state"] == "running" and listed["cron1"]["schedule"] == "30 3 1 1 *"
    assert listed["cron1"]["next"].startswith(("Fri", "Thu", "Mon", "Tue", "Wed", "Sat", "Sun")), listed["cron1"]
    shared_host.sh(f"runuser -u app-clock -- touch {data}/go")
    wait_for("the run of v1, which ends, and the next", lambda: lines("done")[:1] == ["v1"] and "v3" in lines("begun"))

    # Suspended, over a deploy; and again.
    assert say(laptop, "cron:suspend", "clock", "tick").code == 0
    repo.commit({"mark": "three\n"}, "three")
    assert repo.push().ok
    assert not [name for name in timers() if "-tick-" in name]
    count = len(lines("ticks"))
    assert "v4" not in " ".join(lines("ticks"))
    assert say(laptop, "cron:run", "clock", "tick").code == 0
    assert lines("ticks")[-1] == "v4 hello" and len(lines("ticks")) == count + 1, "by hand it runs"
    assert say(laptop, "cron:resume", "clock", "tick").code == 0
    wait_for("it by the clock again", lambda: len(lines("ticks")) > count + 1)

    refused = say(laptop, "ps:scale", "clock", "tick=1")
    assert refused.code == 2 and "runs by the clock" in refused.text
    assert doctor(shared_host) and not [line for line in unwell(shared_host) if line.startswith("clock")]

    repo.commit({"shipit.yml": CLOCK.replace("'*:*:0/5'", "'27:99'")}, "no time")
    result = repo.push()
    assert not result.ok and "bad: '27:99' is no time." in result.text, result.text

    assert say(laptop, "ps:stop", "clock").code == 0
    assert timers() == []
    assert say(laptop, "apps:destroy", "clock", "--force").code == 0
    left = shared_host.sh("ls -d /etc/systemd/system/*clock* /etc/systemd/system/*/*clock* "
                          "/var/lib/systemd/timers/*clock* 2>/dev/null", check=False)  # fmt: skip
    assert left.out == "", left.out


def test_a_limit_that_is_set_is_a_release_holds_for_the_next_and_is_shown_beside_what_is_used(
    laptop: Client, shared_host: Host
) -> None:
    def held(number: int) -> str:
        unit = f"shipit-small-web-v{number}@1.service"
        return shared_host.run("systemctl", "show", "-P", "MemoryMax", "-P", "TasksMax", unit).out

    repo = pushed(laptop, "small", "one", shipit_yml="processes:\n  web: {memory: 300M, tasks: 50}\n")
    result = say(laptop, "resource:limit", "small", "-p", "web", "--memory", "200M", "--cpu", "50%")
    assert result.code == 0, result.text
    assert sorted(held(2).split()) == sorted([str(200 * 2**20), "50"])
    repo.commit({"mark": "two\n"}, "two")
    assert repo.push().ok
    assert str(200 * 2**20) in held(3), "the next push keeps it"
    web, together = asked(laptop, "resource:report", "small")
    assert (
        web["memory"].endswith("M of 200M")
        and re.fullmatch("[0-9]+% of 50%", web["cpu"])
        and web["tasks"].endswith(" of 50")
    ), web
    # How many there are is counted where the kernel of the test machine does it: security/test_build.py.
    most = shared_host.run("systemctl", "show", "-P", "TasksMax", "shipit-small.slice").out.strip()
    assert most.isdigit() and together["process"] == "all together" and together["tasks"].endswith(f" of {most}"), (
        together
    )
    refused = say(laptop, "resource:limit", "small", "--memory", "lots")
    assert refused.code == 2 and "--memory 512M or 2G" in refused.text
