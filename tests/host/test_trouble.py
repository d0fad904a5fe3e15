"""Trouble with the machine itself, made by hand: who drains is left alone, what is wrong is named (issue 12, F38)."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import build, busy, pushed, say, unwell

SHIPIT_YML = "processes: {web: {drain: 60}}\n"
JOURNALD = "systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket"


def test_doctor_leaves_a_release_alone_that_still_finishes_a_request(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "slow", "old", shipit_yml=SHIPIT_YML)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(laptop.get, "slow", "/slow/25", timeout=60)
        wait_for("the request to be under way", lambda: busy(shared_host, "slow", 1))
        repo.commit({"mark": "new\n"})
        assert repo.push().ok
        assert not [line for line in unwell(shared_host) if "other releases" in line]
        mended = json.loads(shared_host.run("shipit", "doctor", "--fix", "--format", "json", check=False).out)["mended"]
        assert not asking.done(), "the request was over before doctor came, so this shows nothing"
        assert not [line for line in mended if "stopped v1" in line]
        assert asking.result(60).status == 200
    wait_for("the end of v1", lambda: "v1" not in {f"v{row['release']}" for row in processes(laptop, "slow")})


def processes(laptop: Client, app: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(say(laptop, "ps", app, "--format", "json", check=True).out)
    return found


def test_who_prints_a_line_survives_the_stop_of_the_journal(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "lines", "lines")
    pids = "systemctl show --value -p MainPID shipit-agent.service shipit-gateway.service"
    assert say(laptop, "apps").code == 0
    before = shared_host.sh(pids).out
    assert "0" not in before.split(), "they do not run"
    shared_host.sh(f"systemctl stop {JOURNALD} && systemctl start {JOURNALD}")
    result = say(laptop, "config:set", "lines", "A=1")
    assert result.code == 0, str(result)
    assert shared_host.sh(pids).out == before
    wait_for(
        "the agent's lines in the journal again",
        lambda: "snapshot_config" in shared_host.sh("journalctl -t shipit-agent --since=-15s").out,
    )


def test_doctor_names_a_bus_that_is_stopped(laptop: Client, shared_host: Host) -> None:
    shared_host.sh("systemctl stop dbus.socket dbus.service", check=False)
    told = unwell(shared_host)
    shared_host.sh("systemctl start dbus.socket dbus.service")
    assert [line for line in told if "dbus.service is inactive" in line], told
    assert not [line for line in unwell(shared_host) if "dbus" in line]


def test_doctor_names_a_domain_that_leads_to_another_machine(laptop: Client, shared_host: Host) -> None:
    pushed(laptop, "moved", "moved")
    say(laptop, "domains:add", "moved", "here.example", "gone.example", check=True)
    # A machine with an address of the world's own.
    shared_host.sh(
        "cp /etc/hosts /etc/hosts.before; printf '8.8.4.4 here.example\n192.0.2.77 gone.example\n' >> /etc/hosts"
    )
    shared_host.sh("ip address add 8.8.4.4/32 dev lo")
    shared_host.sh("ip route add 192.0.2.1 $(ip -o route show default | sed 's/^default//') src 8.8.4.4")
    try:
        told = [line for line in unwell(shared_host) if " leads to " in line]
    finally:
        shared_host.sh("ip route del 192.0.2.1; ip address del 8.8.4.4/32 dev lo; mv /etc/hosts.before /etc/hosts")
    assert told == ["moved: gone.example leads to 192.0.2.77, which is not this machine"]
    assert not [line for line in unwell(shared_host) if " leads to " in line]


def test_systemd_that_executes_itself_anew_fails_no_push(laptop: Client, shared_host: Host) -> None:
    repo = pushed(laptop, "anew", "one", shipit_yml=build("sleep 1"))
    again = shared_host.start("for i in 1 2 3 4 5 6 7 8; do systemctl daemon-reexec; sleep 0.4; done")
    for mark in ("two", "three"):
        repo.commit({"mark": f"{mark}\n"})
        pushed_now = repo.push()
        assert pushed_now.code == 0, str(pushed_now)
        assert laptop.get("anew").body == mark
    assert again.wait(60).code == 0
