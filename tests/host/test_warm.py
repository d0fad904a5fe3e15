"""A release that was kept warm: a rollback goes on with its processes. And all that must hold of them meanwhile."""

from __future__ import annotations

import time

from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import asked, doctor, files, live, pushed, say

PROCFILE = "web: python main.py --at $SOCKET\nworker: sleep infinity\n"
WARM = "warm: 600\nprocesses: {worker: {count: 1, healthcheck: {settle: 0}}}\n"


def processes(client: Client, app: str) -> dict[str, str]:
    """What `ps` shows: {"web.1 v7": "running"}."""
    return {f"{row['process']} {row['release']}": row["state"] for row in asked(client, "ps", app)}


def until(client: Client, app: str, wanted: dict[str, str]) -> None:
    wait_for(f"ps to show {wanted}", lambda: processes(client, app) == wanted)


def who(client: Client, app: str) -> str:
    return client.get(app, "/who").body


def unit_files(host: Host, app: str) -> set[str]:
    return set(host.sh(f"cd /etc/systemd/system; ls shipit-{app}-*.service").out.split())


def test_a_rollback_goes_on_with_the_processes_that_were_kept_warm(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "warm", "one", procfile=PROCFILE, shipit_yml=WARM)
    assert say(laptop, "config:set", "warm", "COLOUR=red").code == 0
    before = who(laptop, "warm")
    repo.commit({"mark": "two\n"})
    repo.push(check=True)
    # What takes requests stays; a worker would go on taking jobs.
    until(laptop, "warm", {"web.1 v3": "running", "worker.1 v3": "running", "web.1 v2": "warm"})
    assert say(laptop, "config:set", "warm", "COLOUR=blue").code == 0
    until(laptop, "warm", {"web.1 v4": "running", "worker.1 v4": "running", "web.1 v3": "warm"})
    three = shared_host.sh("systemctl show -P MainPID shipit-warm-web-v3@1").out

    with laptop.load("warm", threads=2, pause=0.02) as load:
        result = say(laptop, "rollback", "warm")
    report = load.stop()
    assert result.code == 0, str(result)
    assert report.failed == 0, str(report)
    assert "v3 was kept warm" in result.out
    assert "config  ~ COLOUR" in result.out
    assert live(laptop, "warm") == "v5"
    assert who(laptop, "warm") == f"web.1 v3 {three.strip()}" != before, "the process is the one that was kept"
    assert asked(laptop, "config:show", "warm", "--reveal") == {"COLOUR": "red"}
    until(laptop, "warm", {"web.1 v5": "running", "worker.1 v5": "running", "web.1 v4": "warm"})
    assert "two listens" in say(laptop, "logs", "warm", "--release", "v5").out
    assert asked(laptop, "status", "warm")["state"] == "live"
    assert all(one["well"] for one in doctor(shared_host)["findings"] if one["subject"] == "warm")
    shared_host.run("shipit", "doctor", "--fix")
    assert processes(laptop, "warm").get("web.1 v4") == "warm", "mending does not end it"
    assert say(laptop, "ps:restart", "warm", "worker").code == 0
    assert say(laptop, "run", "warm", "sh", "-c", "echo $COLOUR").out.strip() == "red"

    # Its number is another's, and it is the live one: going back to it is a start like any other.
    again = say(laptop, "rollback", "warm", "v3")
    assert again.code == 0, str(again)
    assert "kept warm" not in again.out
    assert who(laptop, "warm").startswith("web.1 v6 ")


def test_what_a_rollback_took_over_comes_up_again_and_is_kept_like_its_own(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "comes-back", "1", shipit_yml="warm: 600\nkeep: 2\n")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "comes-back", {"web.1 v2": "running", "web.1 v1": "warm"})
    assert "kept warm" in say(laptop, "rollback", "comes-back", check=True).out
    # More changes than releases are kept, none of them built: v3 goes on needing what v1 has.
    for _ in range(2):
        assert say(laptop, "ps:restart", "comes-back").code == 0
    assert say(laptop, "rollback", "comes-back", "v4").code == 0
    until(laptop, "comes-back", {"web.1 v6": "running", "web.1 v5": "warm"})
    assert who(laptop, "comes-back").split()[1] == "v4"
    shared_host.reboot()
    wait_for("the app to answer", lambda: laptop.get("comes-back").body == "1")
    assert who(laptop, "comes-back").split()[1] == "v4"
    assert processes(laptop, "comes-back") == {"web.1 v6": "running"}
    shared_host.run("systemctl", "kill", "--signal=KILL", "shipit-comes_back-web-v4@1")
    wait_for("the app to answer", lambda: laptop.get("comes-back").body == "1")


def test_what_is_kept_warm_ends_by_itself_and_is_gone_with_the_next_release(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "ends", "1", shipit_yml="warm: 10\nkeep: 2\n")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "ends", {"web.1 v2": "running", "web.1 v1": "warm"})
    until(laptop, "ends", {"web.1 v2": "running"})
    result = say(laptop, "rollback", "ends")
    assert result.code == 0, str(result)
    assert "kept warm" not in result.out
    assert laptop.get("ends").body == "1"
    repo.commit({"mark": "4\n"})
    repo.push(check=True)
    until(laptop, "ends", {"web.1 v4": "running"})
    assert unit_files(shared_host, "ends") <= {f"shipit-ends-web-v{n}@.service" for n in (3, 4)}, "v1 ran out of time"


def test_what_was_taken_over_does_not_end_with_the_time_that_it_was_kept_for(laptop: Client) -> None:
    repo = pushed(laptop, "stays", "1", shipit_yml="warm: 8\n")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "stays", {"web.1 v2": "running", "web.1 v1": "warm"})
    kept = time.monotonic()
    assert "kept warm" in say(laptop, "rollback", "stays", check=True).out
    before = who(laptop, "stays")
    with laptop.load("stays", threads=2, pause=0.02) as load:
        time.sleep(max(0.0, kept + 11 - time.monotonic()))
    assert load.stop().failed == 0
    assert who(laptop, "stays") == before
    until(laptop, "stays", {"web.1 v3": "running"})


def test_two_releases_are_in_memory_and_no_third(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "two", "1", shipit_yml="warm: 600\n")
    for number in (2, 3):
        repo.commit({"mark": f"{number}\n"})
        repo.push(check=True)
        until(laptop, "two", {f"web.1 v{number}": "running", f"web.1 v{number - 1}": "warm"})
    repo.commit({"main.py": "raise SystemExit('broken on purpose')\n"})
    assert repo.push().code == 1
    assert laptop.get("two").body == "3"
    until(laptop, "two", {"web.1 v3": "running"})


def test_a_rollback_whose_warm_processes_do_not_answer_fails_and_the_next_one_starts_them(
    laptop: Client, shared_host: Host
) -> None:
    repo = pushed(laptop, "hangs", "1", shipit_yml="warm: 600\nprocesses: {web: {healthcheck: {timeout: 3}}}\n")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "hangs", {"web.1 v2": "running", "web.1 v1": "warm"})
    shared_host.run("systemctl", "kill", "--signal=STOP", "shipit-hangs-web-v1@1")
    with laptop.load("hangs", threads=2, pause=0.02) as load:
        result = say(laptop, "rollback", "hangs")
        assert result.code == 1, str(result)
        assert "v2 is still serving" in result.text
        shared_host.sh("systemctl kill --signal=CONT shipit-hangs-web-v1@1; true")
        again = say(laptop, "rollback", "hangs")
    assert again.code == 0, str(again)
    assert load.stop().failed == 0
    assert laptop.get("hangs").body == "1"


def test_stopping_an_app_stops_what_is_kept_warm_and_so_does_destroying_it(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "halts", "1", shipit_yml="warm: 600\n")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "halts", {"web.1 v2": "running", "web.1 v1": "warm"})
    assert say(laptop, "ps:stop", "halts").code == 0
    until(laptop, "halts", {})
    assert say(laptop, "ps:start", "halts").code == 0
    repo.commit({"mark": "3\n"})
    repo.push(check=True)
    until(laptop, "halts", {"web.1 v4": "running", "web.1 v3": "warm"})
    assert say(laptop, "apps:destroy", "--force", "halts").code == 0
    left = shared_host.sh("systemctl list-units --all --plain --no-legend 'shipit-*halts*'").out
    assert not left.strip(), left


def test_other_processes_or_other_config_vars_are_a_start_like_any_other(laptop: Client) -> None:
    repo = pushed(laptop, "differs", "1", shipit_yml="warm: 600\n")
    assert say(laptop, "config:set", "differs", "COLOUR=red").code == 0
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "differs", {"web.1 v3": "running", "web.1 v2": "warm"})
    kept = say(laptop, "rollback", "differs", "--keep-config")
    assert kept.code == 0 and "kept warm" not in kept.out, str(kept)
    assert say(laptop, "ps:scale", "differs", "web=2").code == 0
    scaled = say(laptop, "rollback", "differs", "v3")
    assert scaled.code == 0 and "kept warm" not in scaled.out, str(scaled)
    until(
        laptop,
        "differs",
        {"web.1 v6": "running", "web.2 v6": "running", "web.1 v5": "warm", "web.2 v5": "warm"},
    )


def test_without_being_asked_for_nothing_is_kept_warm_and_the_server_may_ask_for_all(
    laptop: Client, shared_host: Host
) -> None:
    repo = pushed(laptop, "cold", "1")
    repo.commit({"mark": "2\n"})
    repo.push(check=True)
    until(laptop, "cold", {"web.1 v2": "running"})
    settings = shared_host.read("/etc/shipit/shipit.yml")
    try:
        shared_host.write("/etc/shipit/shipit.yml", settings + "warm: 600\n")
        repo.commit({"mark": "3\n"})
        repo.push(check=True)
        until(laptop, "cold", {"web.1 v3": "running", "web.1 v2": "warm"})
        repo.commit({**files("4"), "shipit.yml": "warm: 0\n"})
        repo.push(check=True)
        until(laptop, "cold", {"web.1 v4": "running"})
    finally:
        shared_host.write("/etc/shipit/shipit.yml", settings)
