"""The systemd units in a deb or an rpm, and the package scripts for them: for a machine without shipit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from receiver.model import WEB
from receiver.sources.about import About


class Unit(NamedTuple):
    name: str
    text: str


def units(about: About, processes: Iterable[tuple[str, str]], top: str) -> tuple[Unit, ...]:
    """A unit for each (type, command): NAME.service for web, NAME-TYPE.service for others. `top` is the directory where
    the files are installed."""
    return tuple(Unit(unit_name(about.name, kind), unit(about, kind, command, top)) for kind, command in processes)


def unit_name(name: str, kind: str) -> str:
    return f"{name}.service" if kind == WEB else f"{name}-{kind}.service"


def unit(about: About, kind: str, command: str, top: str) -> str:
    """The unit's text. The process has a user that exists only while it runs, and a data directory; it can write
    nowhere else."""
    name = about.name
    return f"""\
[Unit]
Description={name}: {kind}
Documentation=file:/usr/share/doc/{name}/copyright
After=network.target

[Service]
ExecStart=/bin/sh -c {quoted("exec " + command)}
WorkingDirectory={top}
DynamicUser=yes
StateDirectory={name}
RuntimeDirectory={name}-{kind}
Environment=PORT=8000 SOCKET=/run/{name}-{kind}/{kind}.sock DATA_DIR=/var/lib/{name} HOME=/var/lib/{name}
EnvironmentFile=-/etc/default/{name}
Restart=on-failure
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def quoted(text: str) -> str:
    """One word of ExecStart= (systemd.service(5), "Command lines"), quoted so that systemd replaces nothing in it."""
    for sign, written in (("\\", "\\\\"), ('"', '\\"'), ("$", "$$"), ("%", "%%")):
        text = text.replace(sign, written)
    return f'"{text}"'


def deb(names: Sequence[str]) -> Mapping[str, str]:
    """The scripts as debhelper writes them (dh_installsystemd(1)): an administrator's `disable` survives an upgrade."""
    every = " ".join(names)
    after = "".join(
        f"""\
	if deb-systemd-helper --quiet was-enabled {name}; then
		deb-systemd-helper enable {name} >/dev/null || true
	else
		deb-systemd-helper update-state {name} >/dev/null || true
	fi
"""
        for name in names
    )
    unmask = "".join(f"\tdeb-systemd-helper unmask {name} >/dev/null || true\n" for name in names)
    install = f"""\
#!/bin/sh
set -e
if [ "$1" = configure ] || [ "$1" = abort-upgrade ] || [ "$1" = abort-deconfigure ] || [ "$1" = abort-remove ]; then
{unmask}{after}	if [ -d /run/systemd/system ]; then
		systemctl --system daemon-reload >/dev/null || true
		if [ -n "$2" ]; then
			deb-systemd-invoke restart {every} >/dev/null || true
		else
			deb-systemd-invoke start {every} >/dev/null || true
		fi
	fi
fi
"""
    before = f"""\
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
	deb-systemd-invoke stop {every} >/dev/null || true
fi
"""
    gone = f"""\
#!/bin/sh
set -e
if [ -d /run/systemd/system ]; then
	systemctl --system daemon-reload >/dev/null || true
fi
if [ "$1" = remove ] && command -v deb-systemd-helper >/dev/null; then
	deb-systemd-helper mask {every} >/dev/null || true
fi
if [ "$1" = purge ] && command -v deb-systemd-helper >/dev/null; then
	deb-systemd-helper purge {every} >/dev/null || true
	deb-systemd-helper unmask {every} >/dev/null || true
fi
"""
    return {"postinstall": install, "preremove": before, "postremove": gone}


def rpm(names: Sequence[str]) -> Mapping[str, str]:
    """The scripts of %systemd_post, %systemd_preun and %systemd_postun_with_restart, without systemd's own helper,
    which some machines with rpm lack."""
    every = " ".join(names)
    return {
        "postinstall": f"""\
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	[ "$1" != 1 ] || systemctl enable --now {every} || :
fi
""",
        "preremove": f"""\
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
	systemctl disable --now {every} || :
fi
""",
        "postremove": f"""\
if [ -d /run/systemd/system ]; then
	systemctl daemon-reload || :
	[ "$1" = 0 ] || systemctl try-restart {every} || :
fi
""",
    }


SCRIPTS: Mapping[str, Callable[[Sequence[str]], Mapping[str, str]]] = {"deb": deb, "rpm": rpm}
