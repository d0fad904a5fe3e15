"""Removes an installation. Uses only the standard library and what needs no more, so a broken one can be removed,
too."""

from __future__ import annotations

import sys

from receiver.errors import Rejected
from receiver.paths import SHIPIT_USER, Layout
from receiver.setup import accounts, interpreter, machine, needrestart, places, ssh, web
from receiver.setup.report import Step, step
from receiver.system import disk


def confirmed(layout: Layout, *, purge: bool, yes: bool) -> None:
    """Uninstall or purge; a purge asks first. Raises Rejected if it is not confirmed."""
    apps = sorted(path.name for path in layout.apps.iterdir()) if layout.apps.is_dir() else []
    if purge and not yes:
        print(
            f"This removes shipit with {len(apps)} apps, their releases, config vars and data: {', '.join(apps) or '-'}"
        )
        if not sys.stdin.isatty():
            raise Rejected("Nobody is there to confirm this.", holds="Nothing was changed.", hint="--purge --yes")
        if input("Type purge to go on: ").strip() != "purge":
            raise Rejected("Not confirmed.", holds="Nothing was changed.")
    services = machine.services()
    with step("ssh") as now:
        close(layout, now, services)
    with step("services") as now:
        stop_services(layout, now, services)
    if purge:
        everything(layout, services)
        print("\nshipit is gone. The packages that install.sh brought stay; apt-get remove takes them away.")
        return
    if not apps:
        needrestart.remove(layout)
        with step("proxy") as now:
            if web.remove(layout, places.Record.read(layout), now):
                services.reload_proxy(layout, now)
    print(f"\nshipit receives nothing any more. {told(apps)}")
    print("  back:       ./install.sh")
    print("  everything: ./install.sh --purge")


def told(apps: list[str]) -> str:
    if not apps:
        return "There were no apps."
    return f"These go on serving, also after a reboot: {', '.join(apps)}. Their data is in /var/lib/shipit."


def close(layout: Layout, now: Step, services: machine.Services) -> None:
    """Let nobody log in as `shipit` any more: without our block, sshd's defaults would still read its
    authorized_keys."""
    if disk.remove_file(layout.authorized_keys):
        now.did("nobody can push")
    if accounts.user_exists(SHIPIT_USER):
        accounts.set_shell("/usr/sbin/nologin", now)
    if ssh.remove(layout, now):
        services.reload_ssh(layout, now)


def stop_services(layout: Layout, now: Step, services: machine.Services) -> None:
    """Stop what receives; the apps' processes, nginx and their supervisor go on."""
    services.remove(layout, now)
    disk.remove_file(layout.agent_socket)
    disk.remove_file(layout.root / "usr/local/bin/shipit")


def everything(layout: Layout, services: machine.Services) -> None:
    """Stop the apps and remove everything that is left."""
    with step("apps") as now:
        services.remove_apps(layout, now)
    with step("proxy") as now:
        if web.remove(layout, places.Record.read(layout), now):
            services.reload_proxy(layout, now)
    with step("accounts") as now:
        accounts.remove(layout, now)
    needrestart.remove(layout)
    interpreter.let_go(places.Record.read(layout))
    with step("files") as now:
        for link in places.COMMAND_LINKS:
            disk.remove_file(layout.root / link)
        for path in (layout.root / "etc/tmpfiles.d").glob("shipit*.conf"):
            path.unlink()
        # When our timers last elapsed (systemd.timer(5), Persistent=).
        for path in (layout.root / "var/lib/systemd/timers").glob("stamp-shipit-*"):
            path.unlink()
        gone = [
            "var/cache/shipit",
            "var/log/shipit",
            "run/shipit",
            "run/shipit-root",
            "etc/shipit",
            "var/lib/shipit",
            "usr/lib/shipit",
        ]
        for name in gone:
            disk.remove_tree(layout.root / name)
            now.did(f"/{name}")
        for name in ("var/log/shipit-install.log", "run/shipit-install.lock"):
            disk.remove_file(layout.root / name)
