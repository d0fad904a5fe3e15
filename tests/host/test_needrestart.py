"""Libraries under running processes are replaced by apt; needrestart (Ubuntu's default) restarts what runs on the old."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from lab.background import wait_for
from lab.base import REPO
from lab.client import Client
from lab.host import Host

from host.apps import asked, pushed, unwell

APT = "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o DPkg::Lock::Timeout=120"
UPGRADE = f"{APT} install --reinstall libc6 zlib1g 2>&1"

HOOK = next(line for line in (REPO / "docs/operating.md").read_text().splitlines() if "DPkg::Post-Invoke" in line)


def test_an_upgrade_of_libraries_loses_no_request_and_doctor_brings_apps_and_nginx_to_the_new_ones(
    host: Host, client: Client
) -> None:
    host.sh(f"apt-get -q update && {APT} install --no-install-recommends needrestart", timeout=300)
    pushed(client, "blog", procfile="web: python main.py --at $SOCKET\nworker: sleep infinity\n")
    before, nginx = pids(client), host.read("/run/nginx.pid")

    said = under_load(client, lambda: host.sh(f"NEEDRESTART_MODE=a {UPGRADE}", timeout=300).out)
    assert "restart.d/nginx.service" in said, f"needrestart did not run, so this shows nothing: {said}"
    assert "shipit-" not in said, said
    assert pids(client) == before
    assert host.read("/run/nginx.pid") != nginx
    assert main_pid(host) == host.read("/run/nginx.pid")
    told = unwell(host)
    assert [line.partition(":")[0] for line in told] == ["blog"] and "libc.so.6" in told[0], told

    host.sh(f"NEEDRESTART_SUSPEND=1 {UPGRADE}", timeout=300)
    nginx = host.read("/run/nginx.pid")
    told = unwell(host)
    assert [line for line in told if line.startswith("host: nginx runs on what") and "libc.so.6" in line], told
    host.write("/etc/apt/apt.conf.d/99shipit", HOOK)
    said = under_load(client, lambda: host.sh(f"NEEDRESTART_SUSPEND=1 {APT} install --reinstall zlib1g 2>&1").out)
    assert "host: nginx started anew" in said and "blog: restarted" in said, said
    assert host.read("/run/nginx.pid") != nginx
    assert not {*pids(client)} & {*before}
    assert unwell(host) == []


def under_load(client: Client, do: Callable[[], str]) -> str:
    """What `do` returns; of the requests meanwhile, quick and slow ones, none is lost.

    Each has a connection of its own: one that is kept and idle is closed by every reload of nginx.
    """
    with ExitStack() as stack:
        loads = [
            stack.enter_context(client.load("blog", path, threads=threads, keep_alive=False, pause=0.01))
            for path, threads in (("/", 8), ("/slow/1.5", 4))
        ]
        said: str = do()
        wait_for(
            "requests after it",
            lambda until=[load.total + 8 for load in loads]: all(
                load.total > total for load, total in zip(loads, until, strict=True)
            ),
        )
    for load in loads:
        assert load.stop().failed == 0, f"{load.stop()}\n{said}"
    return said


def pids(client: Client) -> list[int]:
    return sorted(row["pid"] for row in asked(client, "ps", "blog"))


def main_pid(host: Host) -> str:
    """What systemd takes for nginx, when the old one has gone."""
    wait_for("one nginx", lambda: not host.exists("/run/nginx.pid.oldbin"))
    return host.run("systemctl", "show", "-P", "MainPID", "nginx.service").out
