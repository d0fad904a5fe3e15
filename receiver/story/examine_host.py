"""What `shipit doctor` checks of the machine itself. It needs root, to ask sshd and nginx; it only looks."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from receiver.engines import all as engines
from receiver.errors import Failure, as_root
from receiver.ledger.ledger import Ledger, apps
from receiver.paths import LIBEXEC, PREFIX, PROXY_GROUP, PYTHON, SHIPIT_USER, Layout
from receiver.proxy import nginx
from receiver.proxy.vhost import SHARE, most_connections
from receiver.root.client import Agent
from receiver.runtimes.all import RUNTIMES
from receiver.serving import Serving
from receiver.settings import Settings, load
from receiver.story.finding import Finding, has_user
from receiver.system import firewall, sshd
from receiver.system.address import moved
from receiver.system.run import run

SYSTEM_PYTHON = Path("/usr/bin/python3")
MANY_PORTS = 1000


def host_findings(layout: Layout) -> Iterator[Finding]:
    """Check the installation itself."""
    again = "Run the installer again: ./install.sh"
    settings, machine = load(layout.settings), engines.here(layout)
    yield Finding("host", f"installation at {PREFIX.resolve()}", PYTHON.exists() and _tools(), again)
    yield Finding("host", f"user {SHIPIT_USER}", has_user(SHIPIT_USER), again)
    yield Finding("host", f"group {PROXY_GROUP}", _group(PROXY_GROUP), again)
    yield _answers(layout, engines.hints().start_agent)
    wrong = sshd.amiss(sshd.effective(), layout.authorized_keys)
    what = "sshd lets shipit in with a key that is known here, and by no other way"
    yield Finding(
        "host",
        what + (f"; but it has: {', '.join(wrong)}" if wrong else ""),
        not wrong,
        f"{again}\nWhat wins over its part: {as_root(f'sshd -T -C user={SHIPIT_USER},host=localhost,addr=127.0.0.1')}",
    )
    shell = pwd.getpwnam(SHIPIT_USER).pw_shell if has_user(SHIPIT_USER) else ""
    yield Finding("host", f"the shell of {SHIPIT_USER} is the gateway", shell == str(LIBEXEC / "gateway"), again)
    proxy = run(["nginx", "-t"], check=False)
    yield Finding(
        "host",
        "nginx accepts its configuration",
        proxy.code == 0,
        f"See why: {as_root('nginx -t')}\n{proxy.err.strip()}",
    )
    yield Finding(
        "host", "nginx runs", _pid_lives(layout.root / "run/nginx.pid"), f"Start it: {engines.hints().start_proxy}"
    )
    yield from _connections(layout, settings)
    free = shutil.disk_usage(layout.state).free // 2**20
    yield Finding(
        "host", f"{free} MiB free in {layout.state}", free >= settings.min_free,
        f"Pushes are refused below {settings.min_free} MiB. Free some: shipit apps:list, du -sh {layout.apps}/*",
    )  # fmt: skip
    yield from (_takes_files(path) for path in (layout.state, layout.run, layout.etc))
    leads, now = moved(settings.domain)
    yield Finding(
        "host", f"apps answer below {settings.domain}" + (f", which leads to {leads}: not this machine" if leads else ""),
        not leads, f"Have them answer here: ./install.sh --domain {now}",
    )  # fmt: skip
    secure = settings.auto_tls or any(layout.apps.glob("*/tls/keys"))
    for port in (settings.http_port, *((settings.https_port,) if secure else ())):
        opening = firewall.blocks(port, layout.root)
        yield Finding(
            "host", f"{'a' if opening else 'no'} firewall of this machine keeps requests from port {port}",
            not opening, f"Let them in: {as_root(opening)}",
        )  # fmt: skip
    yield from _hoarders()
    links = Path("/proc/sys/fs/protected_hardlinks")
    yield Finding(
        "host", "the kernel protects hard links (fs.protected_hardlinks)",
        not links.exists() or links.read_text().strip() == "1", as_root("sysctl -w fs.protected_hardlinks=1"),
    )  # fmt: skip
    for service in machine.services():
        yield Finding("host", service.what, service.well, service.hint)


def _connections(layout: Layout, settings: Settings) -> Iterator[Finding]:
    """How many connections an app may have open at once; a finding for each app that asks for more than nginx has."""
    try:
        capacity = nginx.capacity(layout)
    except OSError:  # another finding says that nginx is not there
        return
    most = most_connections(Serving(), settings, capacity)
    yield Finding(
        "host",
        f"{most} requests and websockets of an app may be open at once (nginx: worker_connections {capacity})",
        True,
    )
    for app in apps(layout):
        with suppress(Failure):
            release = Ledger(layout.app(app)).current()
            if release and (asked := release.serving.connections) > most_connections(
                release.serving, settings, capacity
            ):
                what = f"asks for {asked} connections, and nginx has {int(capacity * SHARE)} for an app"
                yield Finding(
                    app, what, False, "Raise worker_connections in /etc/nginx/nginx.conf, or lower `connections`."
                )


def python_findings(layout: Layout) -> Iterator[Finding]:
    """As root: whether the Python of shipit and of each live release still exists, and gets the system's updates."""
    system = SYSTEM_PYTHON.resolve()
    mine = PYTHON.resolve()
    yield Finding(
        "host", f"shipit runs on {mine.name}, the system's Python is {system.name}", mine.name == system.name,
        "The system brings no more updates for it. Move to the new one: ./install.sh",
    )  # fmt: skip
    for app in apps(layout):
        with suppress(Failure):
            current = Ledger(layout.app(app)).current()
            if current is None:
                continue
            slug, again = layout.app(app).release(current.slug).slug, f"Build it again: shipit deploy {app}"
            for trouble in (runtime.trouble(slug) for runtime in RUNTIMES):
                if trouble:
                    yield Finding(
                        app, f"{current.name} {trouble.what}", False, trouble.hint or again, dead=trouble.dead
                    )


def _answers(layout: Layout, hint: str) -> Finding:
    try:
        with Agent.connect(layout.agent_socket) as agent:
            agent.ping()
    except Failure as failure:
        return Finding("host", f"the agent does not answer: {failure.message}", False, hint)
    return Finding("host", "the agent answers", True)


def _hoarders(net: Path = Path("/proc/net")) -> Iterator[Finding]:
    """Users that listen on so many TCP ports that few are left for $PORT."""
    ports: dict[int, set[str]] = {}
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError), (net / table).open() as lines:
            for row in map(str.split, islice(lines, 1, None)):
                # The kernel lists all listeners before any connection.
                if row[3] != "0A":
                    break
                ports.setdefault(int(row[7]), set()).add(row[1].rpartition(":")[2])
    for uid, held in ports.items():
        if len(held) >= MANY_PORTS:
            yield Finding("host", f"the user {_name(uid)} listens on {len(held)} TCP ports", False, "ss -tlnp")


def _name(uid: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _tools() -> bool:
    """Whether the programs that builds need are installed."""
    return all((PREFIX / "bin" / tool).exists() for runtime in RUNTIMES for tool in runtime.tools)


def _takes_files(path: Path) -> Finding:
    """Whether new files can be created there: it needs space, inodes and a file system that is not read-only."""
    found = os.statvfs(path)
    why = ""
    if found.f_flag & os.ST_RDONLY:
        why = "is read-only"
    elif found.f_bavail == 0:
        why = "has no space left"
    elif found.f_files and found.f_favail == 0:
        why = "has no inodes left"
    hint = f"df -h {path}; df -i {path}; findmnt -T {path}; dmesg | tail"
    return Finding("host", f"the file system of {path} {why or 'takes new files'}", not why, hint)


def _group(name: str) -> bool:
    try:
        return SHIPIT_USER in grp.getgrnam(name).gr_mem
    except KeyError:
        return False


def _pid_lives(path: Path) -> bool:
    try:
        os.kill(int(path.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True
