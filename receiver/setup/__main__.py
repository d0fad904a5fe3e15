"""The second half of install.sh, which calls it from the version that it has just built (or, to remove, from the
clone)."""

from __future__ import annotations

import argparse
import os
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from receiver.errors import Failure, Rejected
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.setup import accounts, machine, places, remove
from receiver.setup.report import Step, step
from receiver.system.told import told


def main() -> int:
    """Run one of the modes; prints failures and returns the exit code."""
    os.umask(0o022)
    options = parser().parse_args()
    try:
        if options.mode == "install":
            install(Layout(), options)
        else:
            remove.confirmed(Layout(), purge=options.mode == "purge", yes=options.yes == "yes")
    except Failure as failure:
        return told(failure)
    return 0


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(prog="install.sh", allow_abbrev=False)
    words.add_argument("mode", choices=("install", "uninstall", "purge"))
    words.add_argument("--version", default="")
    words.add_argument("--nginx-was-here", default="yes")
    words.add_argument("--demo", default="no")
    words.add_argument("--started", type=int, default=0, help="microseconds since the epoch")
    words.add_argument("--yes", default="no")
    words.add_argument("--key", type=Path, action="append", default=[])
    words.add_argument("--domain", default="")
    words.add_argument("--tls", action="store_true")
    words.add_argument("--http-port", type=int, default=0)
    return words


def install(layout: Layout, options: argparse.Namespace) -> None:
    """Everything after the version is built; each step checks first what there is to change."""
    from receiver.setup import finish, interpreter, needrestart, ssh, web

    if options.http_port and not 0 < options.http_port < 65536:
        raise Rejected("--http-port is not a port.", holds="Nothing was changed.", hint="A number from 1 to 65535")
    given = ssh.read_keys(options.key)
    services = machine.services()
    previous = places.current_version(layout)
    record = places.Record.read(layout)
    http_port = services.choose_http_port(layout, options.http_port)

    with step("interpreter") as now:
        record = interpreter.hold(record, now)
    with step("accounts") as now:
        accounts.ensure(layout, now)
        places.make(layout, now)
    if options.nginx_was_here == "no" and not record.nginx_is_ours:
        record = replace(record, nginx_is_ours=True)
    domain = options.domain
    if not domain and options.demo == "yes" and not layout.settings.exists():
        domain, record = "localhost", replace(record, domain_of_demo=True)
    elif record.domain_of_demo and options.demo == "no":
        domain, record = domain or places.default_domain(), replace(record, domain_of_demo=False)
    record.write(layout)

    with step("settings") as now:
        before = layout.settings.read_bytes() if layout.settings.exists() else b""
        settings = places.write_settings(
            layout, now, domain=domain, http_port=http_port, ssh_port=services.ssh_port(layout), tls=options.tls
        )
    with step("ssh") as now:
        ssh_changed = ssh.configure(layout, now)
        lines = given or ([] if ssh.any_key(layout) else ssh.accounts_keys())
        taken = ssh.add_keys(layout, lines, now)
    with step("proxy") as now:
        web_changed, record = web.configure(layout, settings, record, now)
        record.write(layout)
    with step("services") as now:
        gate = accounts.shell(), ssh.lines(layout)
        switched = places.switch(layout, options.version, now)
        try:
            ssh.open_gate(layout, now)
            services.start(layout, settings, now, ssh_changed=ssh_changed, web_changed=web_changed)
        except Failure as failure:
            if switched and previous:
                back(layout, services, settings, previous, failure, gate)
            raise
        needrestart.install(layout, now)
    if before and before != layout.settings.read_bytes():
        with step("apps") as now:
            finish.follow_settings(layout, now)
    places.prune_versions(layout, previous)
    finish.tell(layout, settings, taken, seconds=time.time() - options.started / 1e6, demo=options.demo == "yes")


def back(
    layout: Layout,
    services: machine.Services,
    settings: Settings,
    previous: str,
    failure: Failure,
    gate: tuple[str, bytes],
) -> None:
    """Let the previous version receive again, because the new one does not; the failure's text says so.

    `gate`: the shell of `shipit` and its authorized_keys, as the previous version had them.
    """
    from receiver.setup import ssh

    unseen = Step()
    places.switch(layout, previous, unseen)
    with suppress(Failure):
        accounts.set_shell(gate[0], unseen)
        ssh.put_lines(layout, gate[1])
        services.start(layout, settings, unseen, ssh_changed=False, web_changed=False)
        failure.holds = f"The previous version, {previous}, receives again; apps did not notice."


if __name__ == "__main__":
    raise SystemExit(main())
