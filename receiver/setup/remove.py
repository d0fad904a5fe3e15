"""Undoing an installation. Only the standard library and what needs no more: a broken installation can be removed."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from receiver.engines.base import booted_with_systemd
from receiver.engines.embedded import family, keeper
from receiver.engines.embedded.supervisord import BAD_NAME, NOT_RUNNING, Supervisor
from receiver.errors import Rejected
from receiver.paths import SHIPIT_USER, Layout
from receiver.setup import accounts, places, services, ssh, web
from receiver.setup.report import Step, step
from receiver.system import disk
from receiver.system.run import run


def confirmed(layout: Layout, *, purge: bool, yes: bool) -> None:
    """Uninstall or purge; a purge asks first. Raises Rejected when it is not confirmed."""
    apps = sorted(path.name for path in layout.apps.iterdir()) if layout.apps.is_dir() else []
    if purge and not yes:
        print(
            f"This removes shipit with {len(apps)} apps, their releases, config vars and data: {', '.join(apps) or '-'}"
        )
        if not sys.stdin.isatty():
            raise Rejected("Nobody is there to confirm this.", holds="Nothing was changed.", hint="--purge --yes")
        if input("Type purge to go on: ").strip() != "purge":
            raise Rejected("Not confirmed.", holds="Nothing was changed.")
    embedded = not booted_with_systemd()
    with step("ssh") as now:
        close(layout, now, embedded)
    with step("services") as now:
        stop_services(layout, now, embedded)
    if purge:
        everything(layout, embedded)
        print("\nshipit is gone. The packages that install.sh brought stay; apt-get remove takes them away.")
        return
    if not apps:
        with step("proxy") as now:
            if web.remove(layout, places.Record.read(layout), now):
                reload_proxy(layout, now, embedded)
    print(f"\nshipit receives nothing any more. {told(apps)}")
    print("  back:       sudo ./install.sh")
    print("  everything: sudo ./install.sh --purge")


def told(apps: list[str]) -> str:
    if not apps:
        return "There were no apps."
    return f"These go on serving, also after a reboot: {', '.join(apps)}. Their data is in /var/lib/shipit."


def close(layout: Layout, now: Step, embedded: bool) -> None:
    """Nobody gets in as `shipit` any more: sshd's default would read the same authorized_keys without our block."""
    if disk.remove_file(layout.authorized_keys):
        now.did("nobody can push")
    if accounts.user_exists(SHIPIT_USER):
        run(["usermod", "--shell", "/usr/sbin/nologin", SHIPIT_USER], check=False)
    if ssh.remove(layout, now):
        if not embedded:
            services.reload_ssh(True, now)
        elif keeper.keeper_pid(layout):
            signal_program(layout, "shipit-sshd", "HUP")


def stop_services(layout: Layout, now: Step, embedded: bool) -> None:
    """Stop what receives; the apps' processes, nginx and (embedded) the supervisor that keeps them go on."""
    if not embedded:
        services.remove_units(layout, now)
    for name in ("shipit-agent", "shipit-reconcile") if embedded else ():
        if disk.remove_file(layout.supervisor / f"{name}.conf"):
            now.did(f"removed {name}")
            if keeper.keeper_pid(layout):
                Supervisor(layout).drop(name)
    disk.remove_file(layout.agent_socket)
    disk.remove_file(layout.root / "usr/local/bin/shipit")


def everything(layout: Layout, embedded: bool) -> None:
    """Stop the apps and remove all that is left."""
    with step("apps") as now:
        if embedded:
            keeper.stop(layout)
            family.kill(family.of_users(user.pw_uid for user in accounts.app_accounts(layout)))
        else:
            stop_app_units(layout, now)
    with step("proxy") as now:
        if web.remove(layout, places.Record.read(layout), now):
            reload_proxy(layout, now, embedded)
    with step("accounts") as now:
        accounts.remove(layout, now)
    with step("files") as now:
        for link in places.COMMAND_LINKS:
            disk.remove_file(layout.root / link)
        for path in (layout.root / "etc/tmpfiles.d").glob("shipit*.conf"):
            path.unlink()
        gone = ["var/cache/shipit", "var/log/shipit", "run/shipit", "etc/shipit", "var/lib/shipit", "usr/lib/shipit"]
        for name in gone:
            disk.remove_tree(layout.root / name)
            now.did(f"/{name}")
        for name in ("var/log/shipit-install.log", "run/shipit-install.lock"):
            disk.remove_file(layout.root / name)


def stop_app_units(layout: Layout, now: Step) -> None:
    """Kill and remove every unit of every app."""
    mine = ["shipit-*.service", "shipit-*.target", "shipit-*.slice", "shipit-*.socket", "shipit-*.timer"]
    run(["systemctl", "stop", "--no-block", *mine], check=False)
    run(["systemctl", "kill", "--signal=SIGKILL", "shipit-*.service"], check=False)
    run(["systemctl", "stop", *mine, "shipit.slice"], check=False)
    for path in sorted(layout.units.rglob("shipit*"), reverse=True):
        if path.is_dir() and not path.is_symlink():
            disk.remove_tree(path)
        else:
            disk.remove_file(path)
    with suppress(OSError):
        (layout.units / "nginx.service.d").rmdir()
    run(["systemctl", "daemon-reload"], timeout=60)
    run(["systemctl", "reset-failed", *mine], check=False)
    now.did("all units are gone")


def reload_proxy(layout: Layout, now: Step, embedded: bool) -> None:
    if not embedded:
        if run(["systemctl", "is-active", "--quiet", "nginx"], check=False).code == 0:
            run(["systemctl", "reload", "nginx"], check=False)
            now.did("nginx reloaded")
        return
    with suppress(OSError, ValueError):
        os.kill(int(Path("/run/nginx.pid").read_text()), 1)
        now.did("nginx reloaded")


def signal_program(layout: Layout, name: str, number: str) -> None:
    Supervisor(layout).call("signalProcess", name, number, ignore=[BAD_NAME, NOT_RUNNING])
