"""Many pushes at once, to one app and to many; much of everything; and nothing that stays running.

On demand as much as the promise says: SHIPIT_TEST_AT_ONCE=50 (pushes to one app, default 8), SHIPIT_TEST_APPS=50 (apps
pushed at once, default 4), SHIPIT_TEST_FILES=100000 (in a commit, default 3000), SHIPIT_TEST_MIB=1000 (of its largest file,
default 3), SHIPIT_TEST_RELEASES=10000 (in an app's history, default 1000), SHIPIT_TEST_CONFIG=10000 (config changes, one
after another, default 15; hours). What they took of the machine is printed (pytest -s).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from lab.background import Background, wait_for
from lab.client import Client, Repo
from lab.host import Host

from host.apps import asked, branch_at_server, build, files, live, newest, pushed, say, unwell
from receiver.system.listener import IDLE

AT_ONCE = int(os.environ.get("SHIPIT_TEST_AT_ONCE", "8"))
APPS = int(os.environ.get("SHIPIT_TEST_APPS", "4"))
FILES = int(os.environ.get("SHIPIT_TEST_FILES", "3000"))
MIB = int(os.environ.get("SHIPIT_TEST_MIB", "3"))
RELEASES = int(os.environ.get("SHIPIT_TEST_RELEASES", "1000"))
CONFIG = int(os.environ.get("SHIPIT_TEST_CONFIG", "15"))
# sshd turns connections away at random when ten have not yet said who they are (MaxStartups); many more than the
# default come to that all the same.
APART = 0.15
SSHD_IS_FULL = "kex_exchange_identification: "
PATIENCE = 120 + 15 * max(AT_ONCE, APPS)

WATCH = """
most() { [ "$2" -gt "$(cat /tmp/most-$1 2>/dev/null || echo 0)" ] && echo "$2" >/tmp/most-$1; }
least() { [ "$2" -lt "$(cat /tmp/least-$1 2>/dev/null || echo 999999999)" ] && echo "$2" >/tmp/least-$1; }
rm -f /tmp/most-* /tmp/least-*
while :; do
    units=$(systemctl list-units --plain --no-legend 'shipit-*.service' 'shipit-*.scope')
    for kind in build- worker- agent@; do
        most $kind "$(printf '%s\\n' "$units" | grep -c "^shipit-$kind.* running ")"
    done
    least memory "$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)"
    sleep 0.2
done
"""


@contextmanager
def watched(host: Host) -> Iterator[Callable[[str], int]]:
    """Count units while the block runs; the yielded function tells the most that were seen of a kind."""
    watcher = host.start(WATCH)
    try:
        yield lambda name: int(host.read(f"/tmp/{name}"))
        told = host.sh("grep -H . /tmp/most-* /tmp/least-*").out.split()
        print("seen:", ", ".join(line.removeprefix("/tmp/").replace(":", " ") for line in told))
    finally:
        watcher.kill()


def pushes(repos: list[Repo], *words: str) -> list[Background]:
    started = []
    for repo in repos:
        started.append(repo.start_push(*words))
        time.sleep(APART)
    return started


def test_of_many_pushes_to_one_app_at_once_each_is_told_the_truth(shared_host: Host, client: Client) -> None:
    first = pushed(client, "shared", "0", shipit_yml=build("sleep 1"))
    others = [client.repo("shared", name=f"shared-{number}") for number in range(AT_ONCE)]
    for number, repo in enumerate(others, start=1):
        repo.git("pull", "-q", str(first.path), "main")
        repo.commit({"mark": f"{number}\n"})
    with watched(shared_host) as seen:
        results = [push.wait(PATIENCE) for push in pushes(others, "--force", "-o", "force")]
        assert seen("most-build-") == 1, "one release of an app at a time"
    rows = asked(client, "releases", "shared", "-n", "1000")
    assert all(row["status"] in ("live", "superseded", "pruned") for row in rows), rows
    made = {row["commit"] for row in rows}
    for repo, result in zip(others, results, strict=True):
        if result.code == 0:
            assert " is live at " in result.err and repo.head[:8] in made, str(result)
        else:
            why = ("Superseded by a newer push", SSHD_IS_FULL)
            assert any(words in result.err for words in why) and repo.head[:8] not in made, str(result)
    assert len(made) == 1 + sum(result.code == 0 for result in results)
    last = next(row for row in rows if row["status"] == "live")
    assert branch_at_server(first)[:8] == last["commit"]
    winner = next(repo for repo in others if repo.head[:8] == last["commit"])
    assert client.get("shared").body == (winner.path / "mark").read_text().strip()
    assert newest(client, "shared")["release"] == last["release"], "the newest push is the one that stays"
    print(f"of {AT_ONCE} pushes: {sum(result.code == 0 for result in results)} live, the others told why not")


def test_of_many_apps_pushed_at_once_two_build_and_the_others_are_told_their_place(
    shared_host: Host, client: Client
) -> None:
    quick = pushed(client, "quick", "one")
    repos = [client.repo(f"many-{number}", files(str(number), shipit_yml=build("sleep 3"))) for number in range(APPS)]
    with watched(shared_host) as seen:
        running = pushes(repos)
        wait_for("the last to stand in line", lambda: "place " in log(shared_host, "many-*"), timeout=PATIENCE)
        quick.commit({"mark": "two\n"})
        between = quick.push()
        waiting = sum(push.process.poll() is None for push in running)
        results = [push.wait(PATIENCE) for push in running]
        # The build that has no step but unpacking does not count.
        assert seen("most-build-") <= 3
    assert between.code == 0 and waiting and "place" not in between.err, str(between)
    for number, result in enumerate(results):
        again = repos[number].push() if SSHD_IS_FULL in result.err else result
        assert again.code == 0, str(again)
        assert client.get(f"many-{number}").body == str(number)
    places = [int(place) for result in results for place in re.findall(r"place (\d+) in the line, 2 run", result.err)]
    assert max(places) >= APPS // 2 - 1 and min(places) == 1
    assert unwell(shared_host) == []
    for number in range(APPS):
        say(client, "apps:destroy", "--force", f"many-{number}", check=True)


def log(host: Host, app: str) -> str:
    """What pushers of these apps have seen so far."""
    return host.sh(f"cat /var/lib/shipit/apps/{app}/releases/v1/log 2>/dev/null", check=False).out


def test_ten_megabytes_in_one_line_are_cut_and_the_build_goes_on(shared_host: Host, client: Client) -> None:
    noisy = build("python3 -c \"print('x' * 10**7)\" && echo the end")
    result = client.repo("noisy", files("one", shipit_yml=noisy)).push()
    assert result.code == 0, str(result)
    assert "That line is longer than 4096 characters" in result.err and "the end" in result.err
    assert len(result.err) < 20_000
    assert len(log(shared_host, "noisy")) < 20_000


@pytest.fixture
def settings(shared_host: Host) -> Iterator[Callable[[str], None]]:
    """Add lines to the server's settings; afterwards they are as before."""
    before = shared_host.read("/etc/shipit/shipit.yml")
    yield lambda more: shared_host.write("/etc/shipit/shipit.yml", before + more)
    shared_host.write("/etc/shipit/shipit.yml", before)


def test_a_limit_is_named_where_it_refuses_and_raised_it_works(
    shared_host: Host, client: Client, settings: Callable[[str], None]
) -> None:
    tree = {f"data/{number // 500}/{number}": f"{number}\n" for number in range(FILES)}
    repo = client.repo("heavy", files("one", **tree))
    repo.commit({"noise": os.urandom(MIB * 2**20)})
    settings(f"max_files: {FILES}\n")
    refused = repo.push(timeout=PATIENCE)
    assert refused.code != 0 and "max_files" in refused.err and "/etc/shipit/shipit.yml" in refused.err, str(refused)
    settings("max_push: 2\n")
    refused = repo.push(timeout=PATIENCE)
    # git's own words, as git is who counts; docs/git.md names the setting.
    assert refused.code != 0 and "pack exceeds maximum allowed size" in refused.err, str(refused)
    settings(f"max_push: {2 + MIB + FILES // 500}\nmax_files: {FILES + 10}\n")
    with watched(shared_host) as seen:
        assert repo.push(timeout=600).code == 0
        assert seen("least-memory") > 0
    assert client.get("heavy").body == "one"
    assert shared_host.sh("find /var/lib/shipit/apps/heavy/slugs/v*/data -type f | wc -l").out.strip() == str(FILES)


def test_a_long_history_is_as_good_as_a_short_one(shared_host: Host, client: Client) -> None:
    repo = pushed(client, "ancient", "one", procfile="web: python main.py --at $SOCKET\n")
    shared_host.write("/tmp/age.py", AGE)
    shared_host.sh(f"/usr/lib/shipit/current/bin/python -I /tmp/age.py ancient {RELEASES}", user="shipit")
    repo.commit({"mark": "two\n"})
    took = {}
    for what, act in (
        ("push", lambda: repo.push()),
        ("config:set", lambda: say(client, "config:set", "ancient", "A=1")),
        ("releases", lambda: say(client, "releases", "ancient")),
        ("rollback", lambda: say(client, "rollback", "ancient")),
    ):
        began = time.monotonic()
        assert act().code == 0
        took[what] = round(time.monotonic() - began, 2)
    print(f"with {RELEASES} releases:", took)
    assert client.get("ancient").body == "two"
    assert live(client, "ancient") == f"v{RELEASES + 4}"
    # Which records a push reads is told by their access times.
    records = "/var/lib/shipit/apps/ancient/releases/v*/release.json"
    shared_host.sh(f"printf '%s\\0' {records} | xargs -0 touch -a -d 2000-01-01")
    repo.commit({"mark": "three\n"})
    assert repo.push().code == 0
    read = int(shared_host.sh(f"printf '%s\\0' {records} | xargs -0 stat -c %X | grep -vc ^946").out)
    assert 1 < read < 80, "a push reads the newest records and no history"


AGE = """
import sys, pathlib
from dataclasses import replace
from receiver.model import Change, decode_release
from receiver.records import encode
app, count = sys.argv[1], int(sys.argv[2])
releases = pathlib.Path(f"/var/lib/shipit/apps/{app}/releases")
first = decode_release((releases / "v1/release.json").read_bytes())
for number in range(2, count + 2):
    made = releases / f"v{number}"
    made.mkdir()
    record = replace(first, number=number, change=Change.CONFIG, slug=1, environment=1)
    (made / "release.json").write_bytes(encode(record))
    for name in ("log", "alive"):
        (made / name).touch()
"""


# What a release may leave on the machine, by kind: all but its record, log and copy in the ledger.
COUNTED = """
find /etc/systemd/system -name 'shipit-counted-*' | wc -l
find /run/systemd/units /run/systemd/transient -name '*shipit-counted-*' 2>/dev/null | wc -l
systemctl list-units --all --plain --no-legend 'shipit-counted-*' 'shipit-worker-counted-*' | wc -l
ls /run/shipit/counted /var/lib/shipit/apps/counted/slugs /var/lib/shipit/apps/counted/config | wc -l
find /tmp /var/tmp -maxdepth 1 -name 'systemd-private-*-shipit-counted-*' | wc -l
git --git-dir=/var/lib/shipit/apps/counted/repo.git -c safe.directory='*' for-each-ref | wc -l
pgrep -u app-counted -c python
"""
MEMORY = "awk '/VmRSS/ {print $2}' /proc/1/status $(pgrep -o nginx | sed 's,.*,/proc/&/status,')"


def test_many_config_changes_leave_no_more_on_the_machine_than_a_few(shared_host: Host, client: Client) -> None:
    pushed(client, "counted", "one", shipit_yml="keep: 5\n")

    def change(first: int, last: int) -> None:
        began = time.monotonic()
        each = "shipit config:set counted N=$n >/tmp/said 2>&1 || { cat /tmp/said; exit 1; }"
        shared_host.sh(f"for n in $(seq {first} {last}); do {each}; done", timeout=last * 5)
        memory = "/".join(shared_host.sh(MEMORY).out.split())
        print(
            f"{last} changes: {(time.monotonic() - began) / (last - first + 1):.2f} s each; KiB of systemd/nginx: {memory}"
        )

    def counts() -> list[str]:
        wait_for("the old release to go", lambda: len(asked(client, "ps", "counted")) == 1)
        # The last release's is watched over for a while (story/aftercare.py).
        workers = "systemctl list-units --all --plain --no-legend 'shipit-worker-counted-*'"
        wait_for("the workers to end", lambda: shared_host.sh(workers).out == "", timeout=90)
        return shared_host.sh(COUNTED).out.split()

    # As many as are kept, and a few more.
    change(1, 8)
    before = counts()
    for first in range(9, CONFIG + 1, 500):
        change(first, min(first + 499, CONFIG))
    assert counts() == before
    assert live(client, "counted") == f"v{CONFIG + 1}"
    assert f'"N": "{CONFIG}"' in client.get("counted", "/env").body


def test_a_running_process_adds_no_mount_that_every_later_start_has_to_copy(shared_host: Host, client: Client) -> None:
    """What the host's namespace holds, each new sandbox copies and changes: beside 100 apps, a start took three times as long."""
    pushed(client, "alone", "one")
    say(client, "ps:scale", "alone", "web=3", check=True)
    wait_for("three processes, and no old one", lambda: len(asked(client, "ps", "alone")) == 3)
    mounted = shared_host.sh("cut -d' ' -f5 /proc/1/mountinfo").out.split()
    assert "/" in mounted
    assert [path for path in mounted if "alone" in path] == []


def test_nothing_of_shipits_runs_when_nothing_is_done(shared_host: Host, client: Client) -> None:
    pushed(client, "quiet", "one")
    # Gateway and agent stay a while for whoever comes next.
    wait_for("all of shipit's processes to end", lambda: not own_processes(shared_host), timeout=IDLE + 60)
    units = shared_host.sh(
        "systemctl list-units --plain --no-legend 'shipit-worker-*' shipit-agent.service 'shipit-agent-*.scope' 'shipit-build-*'"
    )
    assert units.out.strip() == ""
    assert client.get("quiet").body == "one"


def own_processes(host: Host) -> list[str]:
    """Every process of the user shipit, or started from its installation, that is not an app's."""
    listed = host.sh("ps -eo user:32=,args=").out.splitlines()
    return [
        line
        for line in listed
        if line.split()[0] == "shipit" or ("/usr/lib/shipit" in line and not line.startswith("app-"))
    ]
