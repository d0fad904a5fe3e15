"""`apt:*`: which Debian packages apps may have installed. The list is in the server's settings; only root writes
these."""

from __future__ import annotations

import os
from collections.abc import Sequence

import click

from receiver import names, settings
from receiver.cli import out
from receiver.cli.args import Name, json_option
from receiver.cli.main import Context
from receiver.errors import Rejected
from receiver.here import typed
from receiver.ledger.ledger import Ledger, apps
from receiver.paths import Layout
from receiver.system import apt, disk

PATTERN = Name("package", names.package_pattern)


@click.command()
@click.argument("packages", type=PATTERN, nargs=-1, required=True)
@click.pass_obj
def allow(ctx: Context, packages: tuple[str, ...]) -> None:
    """Allow pushes to install these packages of Debian (`apt` of shipit.yml, Aptfile). On the server, as root.

    The scripts of a package run as root when it is installed. `*` stands for any letters.

    \b
    Examples:
      shipit apt:allow libpq-dev ffmpeg
      shipit apt:allow "php-*"
    """
    if os.geteuid():
        words = f"shipit apt:allow {' '.join(packages)}"
        raise Rejected("Packages are allowed on the server itself, by root.", hint=f"On the server: {words}")
    out.say(f"Apps may have installed: {' '.join(allowed(ctx.layout, packages))}. The next push asks for it.")


def allowed(layout: Layout, packages: Sequence[str]) -> list[str]:
    """Add these to the allowed packages in the settings; returns all that are allowed."""
    with disk.locked(disk.roots_dir(layout.roots, 0o711) / "settings.lock", wait=True):
        known = settings.load(layout.settings).apt_allow.split()
        if new := [name for name in packages if name not in known]:
            text = layout.settings.read_text(encoding="utf-8") if layout.settings.exists() else ""
            text = settings.with_line(text, "apt_allow", f'"{" ".join([*known, *new])}"')
            disk.write_atomically(layout.settings, text.encode(), 0o644)
        return [*known, *new]


@click.command()
@json_option
@click.pass_obj
def report(ctx: Context, form: str) -> None:
    """Show which packages the live releases ask for, whether they are there, and what is allowed."""
    wanted: dict[str, list[str]] = {}
    for app in apps(ctx.layout):
        live = Ledger(ctx.layout.app(app)).current() if ctx.caller.sees(app) else None
        for name in live.apt if live else ():
            wanted.setdefault(name, []).append(app)
    gone = apt.missing(sorted(wanted))
    rows = [{"package": name, "apps": ", ".join(used), "there": "no" if name in gone else "yes"}
            for name, used in sorted(wanted.items())]  # fmt: skip
    allowed = settings.load(ctx.layout.settings).apt_allow
    if form == "json":
        out.show_json({"allowed": allowed.split(), "packages": rows})
        return
    out.table(
        rows, {"package": "PACKAGE", "apps": "APPS", "there": "THERE"}, empty="No live release asks for a package."
    )
    out.say(f"Allowed: {allowed}" if allowed else typed("Nothing is allowed yet: shipit apt:allow PACKAGE"))
