"""Where the value of a config var is after everything that can go wrong with it (threat rows 55, 56, 59)."""

from __future__ import annotations

import json
import re

import pytest
from host.apps import asked, environment_of, live, pushed, say
from lab.client import Client, Repo
from lab.host import Host

# Put together here, so that a search of the server does not find this file.
CANARY = "-".join(("c4nary", "of", "s3crets", "9b1f"))
APPS = "/var/lib/shipit/apps"


@pytest.fixture(scope="module")
def keeper(laptop: Client) -> Repo:
    """The app that has the canary, after all that may spill it; the pushes' texts are checked on the way."""
    pushed(laptop, "other", "other")
    repo = pushed(laptop, "keeper", "one")
    told = [say(laptop, "config:set", "keeper", f"SECRET={CANARY}", "PLAIN=production")]
    told.append(say(laptop, "config:set", "keeper", "PEM", "-", input=f"-----\n{CANARY}-in-lines\n-----\n"))
    assert all(result.code == 0 for result in told), told
    # A process that dies with the value in its traceback, a release command and a build that print it.
    spill = "import os; raise SystemExit('no database at ' + repr(os.environ['SECRET']))\n"
    repo.commit({"main.py": spill})
    told.append(repo.push())
    assert told[-1].code != 0 and "[hidden]" in told[-1].err, str(told[-1])
    shell = 'release: echo the release command has $SECRET; echo "$PEM"; exit 3\nweb: python main.py --at $SOCKET\n'
    repo.commit({"Procfile": shell})
    told.append(repo.push())
    assert told[-1].code != 0 and "the release command has [hidden]" in told[-1].err, str(told[-1])
    built = "build:\n  config: [SECRET]\n  command: 'echo the build has $SECRET; exit 4'\n"
    repo.commit({"Procfile": "web: python main.py --at $SOCKET\n", "shipit.yml": built})
    told.append(repo.push())
    assert told[-1].code != 0 and "the build has [hidden]" in told[-1].err, str(told[-1])
    told.append(say(laptop, "rollback", "keeper", "v1"))
    told.append(say(laptop, "rollback", "keeper", "v3"))
    # Commands that fail, with the value among their words.
    told.append(say(laptop, "config:set", "keeper", f"1st={CANARY}"))
    told.append(say(laptop, "config:set", "keeper", f"LISTEN_FDS={CANARY}"))
    told.append(say(laptop, "config:set", "nosuch", f"SECRET={CANARY}"))
    told.append(say(laptop, "config:set", "keeper", f"SECRET={CANARY}", "--nonsense"))
    assert all(result.code == 2 for result in told[-4:]), told[-4:]
    for words in (("config",), ("config:keys",), ("releases",), ("status",), ("ps",), ("releases:info",)):
        told.append(say(laptop, *words, "keeper", *(["v3"] if words == ("releases:info",) else [])))
        told.append(say(laptop, *words, "keeper", *(["v3"] if words == ("releases:info",) else []), "--format", "json"))
    spilled = [str(result) for result in told if CANARY in result.text]
    assert spilled == []
    assert environment_of(laptop, "keeper")["SECRET"] == CANARY, "nothing holds the canary, so this shows nothing"
    return repo


def test_only_the_files_that_are_for_it_hold_a_config_var(keeper: Repo, shared_host: Host) -> None:
    # The pattern is put together inside, so that this search does not find itself.
    head, _, tail = CANARY.rpartition("-")
    spots = "$(ls -d /* | grep -vE '^/(proc|sys|dev)$') /dev/shm"
    found = shared_host.sh(f"p=$(printf '%s-%s' {head} {tail}); grep -rlaF -D skip -e $p {spots}", check=False).out
    paths = found.split()
    may = re.compile(rf"{APPS}/keeper/config/v\d+\.json|/(var|run)/log/journal/.*")
    assert [path for path in paths if not may.fullmatch(path)] == []
    assert any("/config/v" in path for path in paths), paths
    modes = shared_host.sh(f"stat -c '%a %U %n' {APPS}/keeper/config {APPS}/keeper/config/*").out.splitlines()
    assert {line.split()[0] + line.split()[1] for line in modes} == {"700root", "600root"}, modes
    pid = next(row["pid"] for row in asked(keeper.client, "ps", "keeper"))
    opened = shared_host.sh(f"readlink /proc/{pid}/fd/*").out
    assert f"{APPS}/keeper/config" not in opened, "what systemd opened as root is not left to the app"
    holder = shared_host.sh(f"readlink /proc/{pid}/fd/0").out.strip()
    assert holder == "/dev/null"


def test_the_journal_has_it_from_the_apps_own_mouth_only(keeper: Repo, shared_host: Host) -> None:
    lines = shared_host.sh("journalctl -q --no-pager -o json -n 20000").out.splitlines()
    holders = {json.loads(line).get("_SYSTEMD_UNIT", "?") for line in lines if CANARY in line}
    assert holders and all(re.fullmatch(r"shipit-keeper-web-v\d+@1\.service", unit) for unit in holders), holders
    for user in ("app-other", "app-keeper", "nobody"):
        assert CANARY not in shared_host.sh("journalctl -q --no-pager -n 20000 2>/dev/null", user=user, check=False).out


@pytest.mark.parametrize("user", ["root", "shipit", "app-other", "nobody"])
def test_neither_systemd_nor_a_process_list_shows_it(user: str, keeper: Repo, shared_host: Host) -> None:
    manager = "org.freedesktop.systemd1"
    unit = f"shipit-keeper-web-{live(keeper.client, 'keeper')}@1.service"
    path = shared_host.sh(f"systemd-escape --path x >/dev/null; busctl call {manager} /org/freedesktop/systemd1 "
                          f"{manager}.Manager GetUnit s {unit}").out.split()[1].strip('"')  # fmt: skip
    for script in (
        "systemctl show '*' --all", f"systemctl cat {unit}", f"busctl introspect {manager} {path}",
        f"busctl get-property {manager} {path} {manager}.Service Environment LoadCredential SetCredential ExecStart",
        "ps axeww", "cat /proc/[0-9]*/cmdline", "systemctl list-units --all",
    ):  # fmt: skip
        shown = shared_host.sh(f"{script} 2>&1", user=None if user == "root" else user, check=False).text
        # Root may look into any process; systemd must not be the one who tells.
        if not (user == "root" and script.startswith("ps")):
            assert CANARY not in shown, script
    if user != "root":
        pids = asked(keeper.client, "ps", "keeper")
        for row in pids:
            assert not shared_host.sh(f"cat /proc/{row['pid']}/environ", user=user, check=False).ok


def test_a_value_that_root_types_is_in_no_command_line_while_it_goes_live(keeper: Repo, shared_host: Host) -> None:
    """The value is read from a file, so that it is in no command line of the test's own."""
    shared_host.write("/root/typed", f"TYPED={CANARY}-by-root", mode=0o600)
    look = "cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' '"
    setting = shared_host.start('exec shipit config:set keeper "$(cat /root/typed)"')
    looks = []
    while setting.process.poll() is None:
        looks.append(shared_host.sh(look).out)
    assert setting.wait().code == 0
    # Until shipit has been loaded, its words are as Python was given them.
    loaded = [
        number for number, seen in enumerate(looks) if "bin/shipit config:set keeper" in seen and "by-root" not in seen
    ]
    assert loaded, f"the command was never seen without its value: {looks}"
    assert not any("by-root" in seen for seen in looks[loaded[0] :])
