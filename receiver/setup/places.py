"""Directories, the settings file, the record of what install.sh changed, and the link to the current version."""

from __future__ import annotations

import json
import os
import pwd
import socket
from dataclasses import dataclass, fields
from pathlib import Path

from receiver import names, settings
from receiver.errors import Rejected
from receiver.paths import ACME_USER, SHIPIT_USER, Layout
from receiver.setup.report import Step
from receiver.system import disk
from receiver.system.address import primary_address

COMMAND_LINKS = {
    "usr/local/bin/shipit": "/usr/lib/shipit/current/bin/shipit",
    "usr/local/sbin/shipit-supervisord": "/usr/lib/shipit/current/share/shipit/libexec/supervise",
}

# Variables for an installation behind a proxy or a mirror; builds need them as well.
SITE_VARIABLES = (
    "SSL_CERT_FILE", "PIP_CERT", "REQUESTS_CA_BUNDLE", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy",
    "https_proxy", "no_proxy", "PIP_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX",
)  # fmt: skip


@dataclass(frozen=True)
class Record:
    """What the first run found, kept because a later run cannot see it any more.

    `nginx_is_ours`: there was no nginx before, so we may change the catch-all and Debian's default site.
    `default_site`: the target of the link that was removed, "" if none was. `domain_of_demo`: the demo chose the
    domain, so the next run without --domain chooses again. `held`: the Python packages that were marked as manually
    installed.
    """

    nginx_is_ours: bool = False
    default_site: str = ""
    domain_of_demo: bool = False
    held: str = ""

    @staticmethod
    def path(layout: Layout) -> Path:
        return layout.state / "install.json"

    @classmethod
    def read(cls, layout: Layout) -> Record:
        try:
            written = json.loads(cls.path(layout).read_bytes())
        except FileNotFoundError:
            return cls()
        # A newer version may have written further fields.
        return cls(**{field.name: written[field.name] for field in fields(cls) if field.name in written})

    def write(self, layout: Layout) -> None:
        disk.write_atomically(self.path(layout), (json.dumps(self.__dict__) + "\n").encode(), 0o644)


def make(layout: Layout, step: Step) -> None:
    """Make the directories of docs/architecture.md that belong to the server, not to an app."""
    user, acme = pwd.getpwnam(SHIPIT_USER), pwd.getpwnam(ACME_USER)
    wanted = {
        layout.etc: (0o755, 0, 0),
        layout.state: (0o755, 0, 0),
        layout.apps: (0o755, 0, 0),
        layout.home: (0o700, user.pw_uid, user.pw_gid),
        layout.home / ".ssh": (0o700, user.pw_uid, user.pw_gid),
        layout.acme: (0o700, acme.pw_uid, acme.pw_gid),
        layout.challenges: (0o755, 0, 0),
        layout.challenges / ".well-known": (0o755, 0, 0),
        layout.challenges / ".well-known/acme-challenge": (0o755, acme.pw_uid, acme.pw_gid),
        layout.run: (0o755, 0, 0),
        layout.nginx: (0o755, 0, 0),
    }
    missing = [path for path in wanted if not path.is_dir()]
    if missing:
        step.did(f"{len(missing)} directories")
    for path, (mode, uid, gid) in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with disk.opened_dir(path.parent) as parent:
            disk.make_dir(parent, path.name, mode, uid, gid)


def write_settings(
    layout: Layout, step: Step, *, domain: str, http_port: int, ssh_port: int, tls: bool
) -> settings.Settings:
    """Write shipit.yml if there is none; else change only the lines that were asked for ("" and 0: not asked).

    Returns the settings as they are now. Raises Rejected, with the file unchanged, if the result would not be valid.
    """
    asked: dict[str, str | int] = {}
    if domain:
        asked["domain"] = names.domain(domain)
    if http_port:
        asked["http_port"] = http_port
    if tls:
        asked["auto_tls"] = "true"
    path = layout.settings
    try:
        text = old = path.read_text()
    except FileNotFoundError:
        old = ""
        given = {"domain": default_domain(), **asked, **({"ssh_port": ssh_port} if ssh_port != 22 else {})}
        text = fresh_settings(given, {name: os.environ[name] for name in SITE_VARIABLES if os.environ.get(name)})
    else:
        for name, value in asked.items():
            text = settings.with_line(text, name, value)
    if text != old:
        import yaml

        settings.parse(yaml.safe_load(text) or {}, str(path))
        disk.write_atomically(path, text.encode(), 0o644)
        step.did(", ".join(f"{name}: {value}" for name, value in asked.items()) if old else f"wrote {path}")
    return settings.load(path)


def fresh_settings(values: dict[str, str | int], site: dict[str, str]) -> str:
    """The text of a first shipit.yml."""
    lines = ["# The settings of this shipit server; docs/operating.md lists them all.", ""]
    lines += [f"{name}: {value}" for name, value in values.items()]
    if site:
        lines += ["", "# What builds find in their environment; taken from root's when shipit was installed.", ""]
        lines[-1] = "build_environment:"
        lines += [f"  {name}: {json.dumps(value)}" for name, value in site.items()]
    return "\n".join(lines) + "\n"


def default_domain() -> str:
    """A domain below which apps can be reached: this host's own, else one that sslip.io resolves to its address."""
    own = socket.getfqdn().lower()
    try:
        if "." in own and not own.endswith((".localdomain", ".local", ".arpa")):
            return names.domain(own)
    except Rejected:
        pass  # a host name that is no DNS name: use the address
    address = primary_address()
    return f"{address.replace('.', '-')}.sslip.io" if address else "localhost"


def current_version(layout: Layout) -> str:
    """The current version, "" before the first."""
    current = layout.root / "usr/lib/shipit/current"
    return current.readlink().name if current.is_symlink() else ""


def switch(layout: Layout, version: str, step: Step) -> bool:
    """Make `version` the current one; False if it was already."""
    current = layout.root / "usr/lib/shipit/current"
    target = f"versions/{version}"
    for link, goal in COMMAND_LINKS.items():
        path = layout.root / link
        if not path.is_symlink() or str(path.readlink()) != goal:
            disk.replace_symlink(path, goal)
    if current.is_symlink() and str(current.readlink()) == target:
        return False
    disk.replace_symlink(current, target)
    step.did(version)
    return True


def prune_versions(layout: Layout, previous: str) -> None:
    """Remove all versions except the current one, the previous one and those of running programs."""
    base = layout.root / "usr/lib/shipit"
    keep = {(base / "current").readlink().name, previous}
    for path in (base / "versions").iterdir():
        if path.name not in keep and not _in_use(path):
            disk.remove_tree(path)


def _in_use(version: Path) -> bool:
    needle = os.fsencode(version) + b"/"
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if needle in process.read_bytes():
                return True
        except OSError:
            continue  # the process has just ended
    return False
