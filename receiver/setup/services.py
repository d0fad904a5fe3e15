"""shipit's own services on a machine with systemd: socket-activated units. See machine.Services."""

from __future__ import annotations

import os
import pwd
from contextlib import suppress
from pathlib import Path

from receiver import settings
from receiver.errors import Failure, HostFault, as_root
from receiver.paths import SHIPIT_USER, Layout, share
from receiver.proxy import master
from receiver.settings import Settings
from receiver.setup import ssh, web
from receiver.setup.report import Step
from receiver.system import disk
from receiver.system.run import run

DROPIN = "shipit.conf"
# Units of older versions.
GONE = ("shipit-ssh-nodelay.service",)
KINDS = (".service", ".socket", ".slice", ".target", ".timer", ".path", ".mount")


def unit_sources() -> list[Path]:
    """The server's own unit files, as they are; those that end in .j2 are the apps' and made by the agent."""
    return sorted(path for path in (share("templates") / "systemd").iterdir() if path.suffix in KINDS)


def tmpfiles_sources() -> list[Path]:
    return sorted((share("templates") / "systemd").glob("*.conf"))


def choose_http_port(layout: Layout, asked: int) -> int:
    """The proxy's port that was asked for, 0 if none was; raises HostFault if another program has it."""
    web.check_port(asked or settings.load(layout.settings).http_port)
    return asked


def ssh_port(layout: Layout) -> int:
    return ssh.port()


def start(layout: Layout, known: Settings, step: Step, *, ssh_changed: bool, web_changed: bool) -> None:
    """Start everything, or make running services read what has changed. `known` is not needed here."""
    install_units(layout, step)
    start_ssh(ssh_changed, step)
    start_nginx(layout, web_changed, step)


def install_units(layout: Layout, step: Step) -> None:
    """Install the units, let systemd read them, and start those that run or listen."""
    changed = [source for source in unit_sources() if _put(source, layout.units / source.name)]
    login, runtime_dir, manager = of_login(layout)
    nginx = layout.units / f"nginx.service.d/{DROPIN}"
    for name, unit in (("nginx.dropin", nginx), ("login.dropin", login), ("runtime-dir.unit", runtime_dir)):
        unit.parent.mkdir(exist_ok=True)
        source = share("templates") / "systemd" / name
        changed += [source] if _put(source, unit) else []
    if not manager.is_symlink():
        disk.replace_symlink(manager, os.devnull)
        changed.append(manager)
    for name in GONE:
        if (layout.units / name).exists():
            run(["systemctl", "stop", name], check=False)
            changed += [layout.units / name] if disk.remove_file(layout.units / name) else []
    for source in tmpfiles_sources():
        target = layout.root / "etc/tmpfiles.d" / source.name
        target.parent.mkdir(exist_ok=True)
        _put(source, target)
        run(["systemd-tmpfiles", "--create", target])
    if changed:
        run(["systemctl", "daemon-reload"], timeout=60)
        step.did(f"{len(changed)} units")
    wanted = [source.name for source in unit_sources() if "\n[Install]" in source.read_text()]
    run(["systemctl", "enable", "--quiet", *wanted], timeout=60)
    if looks := of_looks(layout):
        # `--uninstall` may have stopped them.
        run(["systemctl", "enable", "--quiet", "--now", *looks], timeout=60)
    # First the mount for the sockets. If apps listen already, its condition leaves it for the next boot.
    run(["systemctl", "start", *(name for name in wanted if name.endswith(".mount"))], check=False, timeout=60)
    run(["systemctl", "start", *(name for name in wanted if name.endswith((".socket", ".timer", ".path")))], timeout=60)
    # The running services may be of an older version; their forks go on.
    run(["systemctl", "stop", "shipit-gateway.service", "shipit-agent.service", "shipit-hook.service"], timeout=60)
    again = [source.name for source in changed if source.suffix == ".socket"]
    if again:
        run(["systemctl", "restart", *again], timeout=60)


def of_login(layout: Layout) -> tuple[Path, Path, Path]:
    """systemd's files that concern logins of `shipit`.

    A drop-in of its slice starts gateway and agent with a login. Two units that every login would wait for are
    replaced: the one that makes its directory in /run/user, and its user manager, which is masked (user@.service(5)).

    Raises KeyError if the user does not exist.
    """
    uid = pwd.getpwnam(SHIPIT_USER).pw_uid
    own = layout.units / f"user-runtime-dir@{uid}.service", layout.units / f"user@{uid}.service"
    return layout.units / f"user-{uid}.slice.d/{DROPIN}", *own


def of_looks(layout: Layout) -> list[str]:
    """The timers of apps that follow a repository. They make releases, so they run only while the server receives."""
    return sorted(path.name for path in layout.units.glob("shipit-look@*.timer"))


def remove(layout: Layout, step: Step) -> None:
    """Stop and remove the server's own units. Those of apps stay, but the timers that look at a repository are
    stopped."""
    if looks := of_looks(layout):
        run(["systemctl", "disable", "--quiet", "--now", *looks], check=False)
    # The mount stays: the apps, which go on, use it.
    ours = [source.name for source in unit_sources() if source.suffix != ".mount"]
    names = [name for name in (*ours, *GONE) if (layout.units / name).exists()]
    if names:
        run(["systemctl", "disable", "--quiet", "--now", *(name for name in names if "@" not in name)], check=False)
    for name in names:
        (layout.units / name).unlink()
    with suppress(KeyError):
        login, *own = of_login(layout)
        disk.remove_tree(login.parent)
        for unit in own:
            disk.remove_file(unit)
    run(["systemctl", "daemon-reload"], timeout=60)
    if names:
        step.did(f"{len(names)} units removed")


def remove_apps(layout: Layout, step: Step) -> None:
    """Kill and remove every unit of every app."""
    mine = [
        "shipit-*.service",
        "shipit-*.target",
        "shipit-*.slice",
        "shipit-*.socket",
        "shipit-*.timer",
        "shipit-*.scope",
    ]
    run(["systemctl", "stop", "--no-block", *mine], check=False)
    run(["systemctl", "kill", "--signal=SIGKILL", "shipit-*.service"], check=False)
    run(["systemctl", "stop", *mine, "shipit.slice"], check=False)
    for mount in (source.name for source in unit_sources() if source.suffix == ".mount"):
        run(["systemctl", "disable", "--quiet", "--now", mount], check=False)
        disk.remove_file(layout.units / mount)
    if layout.run.is_mount():
        # A process that is just ending may still hold a socket there.
        run(["umount", "--lazy", layout.run], check=False)
    for path in sorted(layout.units.rglob("shipit*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            disk.remove_tree(path)
        else:
            disk.remove_file(path)
    with suppress(OSError):
        (layout.units / "nginx.service.d").rmdir()
    run(["systemctl", "daemon-reload"], timeout=60)
    run(["systemctl", "reset-failed", *mine], check=False)
    step.did("all units are gone")


def reload_ssh(layout: Layout, step: Step) -> None:
    start_ssh(True, step)


def reload_proxy(layout: Layout, step: Step) -> None:
    # It may end meanwhile.
    with suppress(Failure, OSError):
        if running := master.pid(layout):
            master.reload(layout, running)
            step.did("nginx reloaded")


def start_ssh(changed: bool, step: Step) -> None:
    """Make sshd run, and read its configuration if that has changed; sessions go on."""
    unit = "ssh.service"
    if _active(unit):
        if changed:
            run(["systemctl", "reload", unit])
            step.did("sshd reloaded")
    elif not _active("ssh.socket"):  # Ubuntu starts sshd for each connection, so it reads the files each time
        run(["systemctl", "enable", "--quiet", "--now", unit], timeout=60)
        step.did("sshd started")


def start_nginx(layout: Layout, changed: bool, step: Step) -> None:
    """Make nginx run, now and at boot, and read its configuration, without dropping a connection."""
    if _active("nginx.service"):
        if changed:
            if running := master.pid(layout):
                master.reload(layout, running)
            else:
                # An nginx.conf of the administrator's may have the pid file elsewhere.
                run(["systemctl", "reload", "nginx.service"], timeout=60)
            step.did("nginx reloaded")
        return
    started = run(["systemctl", "enable", "--quiet", "--now", "nginx.service"], timeout=60, check=False)
    if started.code:
        raise HostFault(
            "nginx does not start.",
            holds="shipit is installed; apps can be pushed, but nobody reaches them.",
            hint=f"{as_root('systemctl status nginx')}; then run ./install.sh again",
            details=run(["journalctl", "-u", "nginx", "-n", "10", "-o", "cat"], check=False).out.splitlines(),
        )
    step.did("nginx started")


def _active(unit: str) -> bool:
    return run(["systemctl", "is-active", "--quiet", unit], check=False).code == 0


def _put(source: Path, target: Path) -> bool:
    data = source.read_bytes()
    if target.exists() and target.read_bytes() == data:
        return False
    disk.write_atomically(target, data, 0o644)
    return True
