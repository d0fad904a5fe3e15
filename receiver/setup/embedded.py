"""shipit's own services on a machine without systemd: programs of the embedded supervisor.

It also runs sshd and nginx, unless the machine runs them already: then these are used, and only told to read their
configuration again.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from receiver import settings
from receiver.engines.embedded import keeper, supervisord
from receiver.engines.embedded.programs import Program
from receiver.engines.embedded.supervisord import BAD_NAME, NOT_RUNNING, Supervisor
from receiver.errors import Failure, HostFault, as_root
from receiver.paths import LIBEXEC, PYTHON, Layout
from receiver.proxy import master
from receiver.settings import Settings
from receiver.setup import accounts, ssh
from receiver.setup.ports import Listener, free_port, listener
from receiver.setup.report import Step
from receiver.system import disk, family
from receiver.system.render import render
from receiver.system.run import run

SUPERVISE = LIBEXEC / "supervise"


def choose_http_port(layout: Layout, asked: int) -> int:
    """The proxy's port: the one asked for or set, else 80; if another program has that, a free one from 8080 on.

    0 if the settings need no change. Raises HostFault if the port that was asked for, or set before, is taken.
    """
    wanted = asked or settings.load(layout.settings).http_port
    other = listener(wanted)
    if other is None or other.name == "nginx":
        return asked
    if asked or layout.settings.exists():
        raise HostFault(
            f"Port {wanted} is taken by {other}.",
            holds="Nothing was changed but packages.",
            hint="Stop it, or let the proxy listen elsewhere: ./install.sh --http-port 8080",
        )
    return free_port(8080)


def ssh_port(layout: Layout) -> int:
    """Where sshd listens: as set, else as configured; if another program has that port, on a free one."""
    if layout.settings.exists():
        return settings.load(layout.settings).ssh_port
    wanted = ssh.port()
    other = listener(wanted)
    return wanted if other is None or other.name == "sshd" else free_port(2222)


def start(layout: Layout, known: Settings, step: Step, *, ssh_changed: bool, web_changed: bool) -> None:
    """Start everything, or make running services read what has changed. Apps are not affected."""
    layout.supervisor.mkdir(exist_ok=True)
    layout.log.mkdir(mode=0o755, exist_ok=True)
    _write_config(layout)
    supervisor = Supervisor(layout)
    first = not keeper.keeper_pid(layout)
    foreign = {
        name: _foreign(layout, name, port) for name, port in (("sshd", known.ssh_port), ("nginx", known.http_port))
    }
    programs = [
        Program("shipit-agent", f"{PYTHON} -IS {LIBEXEC / 'agent'} --listen", layout.log / "agent.log"),
    ]
    # Repairs differences between ledger and machine after a crash, as shipit-reconcile.service does.
    reconcile = Program(
        "shipit-reconcile", f"{PYTHON} -IS {LIBEXEC / 'agent'} --reconcile-all", layout.log / "reconcile.log", once=True
    )
    supervisord.write(layout, reconcile)
    if foreign["nginx"] is None:
        command = f"{PYTHON} -IS {LIBEXEC / 'webserver'} -g 'daemon off;'"
        programs.append(Program("shipit-nginx", command, layout.log / "nginx.log", stop_signal="QUIT"))
    if foreign["sshd"] is None:
        # -e: there is no syslog. On HUP sshd re-executes itself with its arguments; sessions go on.
        command = f"/usr/sbin/sshd -D -e -p {known.ssh_port}"
        programs.append(Program("shipit-sshd", command, layout.log / "sshd.log"))
    for name in ("nginx", "sshd"):
        if foreign[name] is not None and disk.remove_file(layout.supervisor / f"shipit-{name}.conf") and not first:
            supervisor.drop(f"shipit-{name}")
    changed = {program.name for program in programs if supervisord.write(layout, program)}
    if first:
        # If a program does not start, _await names it, with its log.
        run([SUPERVISE, "start"], timeout=60, check=False)
        step.did("supervisor started")
    else:
        supervisor.load([program.name for program in programs])
        # It only listens; its forks do the work, and go on to their end.
        for name in {"shipit-agent", *changed}:
            _restart(supervisor, name)
    for name, was_changed in (("sshd", ssh_changed), ("nginx", web_changed)):
        other = foreign[name]
        running = master.pid(layout) if name == "nginx" else 0
        if running and (other is not None or (was_changed and not first and f"shipit-{name}" not in changed)):
            master.reload(layout, running)
            step.did(f"{name} reloaded")
        elif other is not None:
            os.kill(other.pid, signal.SIGHUP)
            step.did(f"{name} (pid {other.pid}) reloaded")
        elif was_changed and not first and f"shipit-{name}" not in changed:
            supervisor.call("signalProcess", f"shipit-{name}", "HUP")
            step.did(f"{name} reloaded")
    _await(layout, supervisor, [program.name for program in programs])


def reload_ssh(layout: Layout, step: Step) -> None:
    if keeper.keeper_pid(layout):
        Supervisor(layout).call("signalProcess", "shipit-sshd", "HUP", ignore=[BAD_NAME, NOT_RUNNING])


def reload_proxy(layout: Layout, step: Step) -> None:
    # It may end meanwhile.
    with suppress(Failure, OSError):
        if running := master.pid(layout):
            master.reload(layout, running)
            step.did("nginx reloaded")


def remove(layout: Layout, step: Step) -> None:
    for name in ("shipit-agent", "shipit-reconcile"):
        if disk.remove_file(layout.supervisor / f"{name}.conf"):
            step.did(f"removed {name}")
            if keeper.keeper_pid(layout):
                Supervisor(layout).drop(name)


def remove_apps(layout: Layout, step: Step) -> None:
    keeper.stop(layout)
    family.kill(family.of_users(user.pw_uid for user in accounts.app_accounts(layout)))


def _write_config(layout: Layout) -> None:
    text = render(
        "supervisor/supervisord.conf.j2",
        run=layout.run,
        log=layout.log,
        socket=supervisord.control_socket(layout),
        programs=layout.supervisor,
    )
    disk.write_atomically(supervisord.config(layout), text.encode(), 0o644)


def _foreign(layout: Layout, name: str, port: int) -> Listener | None:
    """The sshd or nginx that this machine runs itself; None if it runs none, or if it is ours."""
    other = listener(port)
    if other is None or other.name != name:
        return None
    alive = keeper.keeper_pid(layout)
    # Ours are found by descent, since both overwrite their environment, and with a dead keeper by their leftover file.
    left = (layout.supervisor / f"shipit-{name}.conf").exists()
    return None if (other.pid in family.below(alive) if alive else left) else _master(other)


def _master(found: Listener) -> Listener:
    """The process to send signals to: for nginx, whose workers listen as well, the master."""
    parent = int(Path(f"/proc/{found.pid}/stat").read_text().rpartition(")")[2].split()[1])
    if parent > 1 and Path(f"/proc/{parent}/comm").read_text().strip() == found.name:
        return Listener(parent, found.name)
    return found


def _restart(supervisor: Supervisor, name: str) -> None:
    supervisor.call("reloadConfig")
    supervisor.drop(name)
    supervisor.load([name])
    supervisor.start(name)


def _await(layout: Layout, supervisor: Supervisor, names: list[str]) -> None:
    """Wait until each runs and both sockets exist; raises HostFault with the log of one that does not start."""
    deadline = time.monotonic() + 20
    while True:
        states = supervisor.programs()
        bad = [name for name in names if states[name]["state"] not in (supervisord.STARTING, supervisord.RUNNING)]
        if not bad and layout.agent_socket.exists():
            return
        if time.monotonic() > deadline:
            name = (bad or names)[0]
            log = layout.log / f"{name.removeprefix('shipit-')}.log"
            raise HostFault(
                f"{name} does not start.",
                holds="Everything is installed; the other services run.",
                hint=f"{as_root(f'tail {log}')}; then run ./install.sh again",
                details=log.read_text(errors="replace").splitlines()[-10:] if log.exists() else [],
            )
        time.sleep(0.05)
