"""What a login of the user shipit wakes, what it is kept in by, and what happens when it is not there."""

from __future__ import annotations

import time

import pytest
from lab.background import wait_for
from lab.client import Client
from lab.host import Host

from host.apps import build, newest, pushed, say, until_body, unwell

SERVICES = ("shipit-gateway.service", "shipit-agent.service")


def active(host: Host, unit: str) -> bool:
    return host.run("systemctl", "is-active", "--quiet", unit, check=False).ok


def status_of(host: Host, pattern: str) -> dict[str, str]:
    """proc(5), status, of the oldest process with this command line."""
    pid = host.run("pgrep", "-o", "-f", pattern).out.strip()
    lines = host.read(f"/proc/{pid}/status").splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_login_wakes_gateway_and_agent_and_no_manager_of_units_it_has_not(shared_host: Host, laptop: Client) -> None:
    shared_host.run("systemctl", "stop", *SERVICES)
    assert say(laptop, "version").code == 0
    assert all(active(shared_host, unit) for unit in SERVICES), "the agent too, which this command did not ask"
    check_session(shared_host)


def check_session(host: Host) -> None:
    """logind knows the session; there is no manager, and no directory, for which it waited."""
    uid = host.sh("id -u shipit").out.strip()
    shown = host.run("systemctl", "show", "--property=LoadState,ActiveEnterTimestampMonotonic", f"user@{uid}").out
    assert shown.split() == ["LoadState=masked", "ActiveEnterTimestampMonotonic=0"]
    assert not host.exists(f"/run/user/{uid}")
    journal = host.journal("-t", "sshd", "-t", "sshd-session", "-t", "systemd-logind")
    assert "Failed to create session" not in journal and "of user shipit" in journal
    assert host.failed_units() == []


def test_what_a_push_starts_as_shipit_is_in_a_sandbox(shared_host: Host, laptop: Client) -> None:
    repo = pushed(laptop, "caged", "one")
    repo.commit({"mark": "two\n", "shipit.yml": build("echo it builds; sleep 4")})
    push = repo.start_push()
    wait_for("the build", lambda: "it builds" in push.so_far())
    for pattern in ("gateway --listen", "git receive-pack", "hooks/post-receive"):
        found = status_of(shared_host, pattern)
        kept = {name: found[name] for name in ("NoNewPrivs", "Seccomp", "CapBnd")}
        assert kept == {"NoNewPrivs": "1", "Seccomp": "2", "CapBnd": "0" * 16}, pattern
    worker = shared_host.sh("pgrep -x shipit-worker").out.strip()
    for pid in (worker, *shared_host.sh("pgrep -f 'git receive-pack'").out.split()):
        assert 0 < memory_limit(shared_host, pid) <= 2**30, "what is pushed may unpack to all of the memory"
    for unit in ("shipit-gateway.service", "shipit-worker-caged-v2.scope"):
        assert shared_host.sh(f"systemctl show -P MemoryMax {unit}").out.strip().isdigit(), unit
    assert "shipit-worker-caged-v2.scope" in shared_host.read(f"/proc/{worker}/cgroup")
    mounts = shared_host.read(f"/proc/{worker}/mountinfo").splitlines()
    etc = [line for line in mounts if line.split()[4] in ("/", "/etc")]
    assert etc and all(line.split()[5].startswith("ro") for line in etc), "the worker could write to /etc"
    assert push.wait().code == 0
    assert unwell(shared_host) == []


def test_a_terminal_that_is_closed_takes_along_what_was_watched_on_it(shared_host: Host, laptop: Client) -> None:
    pushed(laptop, "watched", "one")
    watching = laptop.start_ssh("logs", "watched", "-t", tty=True)
    follows = ("pgrep", "-u", "shipit", "-x", "journalctl")
    wait_for("journalctl", lambda: shared_host.run(*follows, check=False).ok)
    watching.kill()
    wait_for("it to end", lambda: not shared_host.run(*follows, check=False).ok)


def memory_limit(host: Host, pid: str) -> int:
    """What a process may take, 0 if there is no limit (proc(5), limits)."""
    line = next(line for line in host.read(f"/proc/{pid}/limits").splitlines() if line.startswith("Max data size"))
    return int(line.split()[3].replace("unlimited", "0"))


@pytest.mark.parametrize("unit", SERVICES)
@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_deploy_goes_on_when_who_listens_is_gone(unit: str, how: str, shared_host: Host, laptop: Client) -> None:
    """As an upgrade stops it, and as a crash ends it: the forks that are at work stay."""
    app = f"listen-{how}-{unit[7:9]}"
    repo = pushed(laptop, app, "one")
    repo.commit({"mark": "two\n", "shipit.yml": build("echo it builds; sleep 2")})
    push = repo.start_push()
    wait_for("the build", lambda: "it builds" in push.so_far())
    if how == "stop":
        shared_host.run("systemctl", "stop", unit)
    else:
        shared_host.run("systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit)
    result = push.wait()
    assert result.code == 0, str(result)
    until_body(laptop, app, "two")
    assert newest(laptop, app)["status"] == "live"
    assert unwell(shared_host) == []


def test_a_gateway_that_cannot_start_keeps_nobody_out(shared_host: Host, laptop: Client) -> None:
    broken = "/etc/systemd/system/shipit-gateway.service.d/broken.conf"
    shared_host.run("systemctl", "stop", SERVICES[0])
    shared_host.write(broken, "[Service]\nExecStart=\nExecStart=/bin/false\n")
    shared_host.run("systemctl", "daemon-reload")
    try:
        began = time.monotonic()
        pushed(laptop, "served", "one")
        assert time.monotonic() - began < 60
    finally:
        shared_host.run("rm", "-r", broken.rpartition("/")[0])
        shared_host.run("systemctl", "daemon-reload")
        shared_host.run("systemctl", "reset-failed", "shipit-gateway.service", "shipit-gateway.socket", check=False)
    # A login that comes while logind still keeps the last one's slice (UserStopDelaySec=) wakes nobody; the next does.
    uid = shared_host.sh("id -u shipit").out.strip()
    wait_for("the end of the last login's slice", lambda: not active(shared_host, f"user-{uid}.slice"), timeout=60)
    assert say(laptop, "version").code == 0
    wait_for("the gateway to be up again", lambda: active(shared_host, SERVICES[0]))
    assert unwell(shared_host) == []
