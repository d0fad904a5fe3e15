"""What `shipit doctor` checks: every promise about a host that can be checked by looking.

`host_findings` needs root (it asks sshd and nginx); `app_findings` runs as `shipit`. Both only look; repairs are the
agent's RECONCILE, which also runs at boot.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from receiver.engines import all as engines
from receiver.engines.base import ProcessState, keeps_ending
from receiver.errors import Failure, as_root
from receiver.ledger.ledger import Ledger, apps
from receiver.ledger.repair import repair
from receiver.model import AppState, Https, Release
from receiver.names import AppName
from receiver.ops import quota
from receiver.paths import LIBEXEC, PREFIX, PROXY_GROUP, PYTHON, SHIPIT_USER, Layout, app_user, build_user
from receiver.proxy import certificates, nginx
from receiver.proxy.certificates import Origin
from receiver.proxy.endpoint import silence, takes_requests
from receiver.proxy.vhost import SHARE, domains, most_connections
from receiver.records import Corrupt
from receiver.root.client import Agent
from receiver.runtimes.all import RUNTIMES
from receiver.serving import Serving
from receiver.settings import Settings, load
from receiver.sources.all import source_of
from receiver.story import storage, verdict
from receiver.system import firewall, sshd
from receiver.system.address import moved
from receiver.system.run import run

SYSTEM_PYTHON = Path("/usr/bin/python3")
MANY_PORTS = 1000

LOADS = 10.0  # seconds after its start in which a process may not listen yet


@dataclass(frozen=True)
class Finding:
    """One thing that was checked. `hint` is what to type if it is not well; `mends`: reconcile repairs it; `dead`:
    only building the live commit again does; `outdated`: only a restart does, of nginx or the app."""

    subject: str
    what: str
    well: bool
    hint: str = ""
    mends: bool = False
    dead: bool = False
    outdated: bool = False


def host_findings(layout: Layout) -> Iterator[Finding]:
    """Check the installation itself."""
    again = "Run the installer again: ./install.sh"
    settings, machine = load(layout.settings), engines.here(layout)
    yield Finding("host", f"installation at {PREFIX.resolve()}", PYTHON.exists() and _tools(), again)
    yield Finding("host", f"user {SHIPIT_USER}", _user(SHIPIT_USER), again)
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
    shell = pwd.getpwnam(SHIPIT_USER).pw_shell if _user(SHIPIT_USER) else ""
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


def app_findings(layout: Layout, app: AppName, agent: Agent) -> Iterator[Finding]:
    """Check one app: ledger, slug, processes, branch."""
    ledger = Ledger(layout.app(app))
    try:
        state, current, releases = ledger.state(), ledger.current(), ledger.releases()
    except Failure as failure:
        yield Finding(app, failure.message, False, mends=True)
        return
    yield Finding(app, f"ledger of {len(releases)} releases", True)
    users = _user(app_user(app)) and _user(build_user(app))
    yield Finding(app, "users of the app", users, f"shipit apps:create {app} makes them anew", mends=True)
    left = [r.name for r in releases if not r.status.final and not ledger.worker_lives(r.number)]
    yield Finding(app, f"interrupted releases: {', '.join(left) or 'none'}", not left, mends=True)
    if current is None:
        return
    whole = not current.slug or ledger.is_whole(current)
    yield Finding(
        app, f"{current.name} is live and whole", whole, f"Its files are gone; go back: shipit rollback {app}"
    )
    numbers = ledger.kept()
    kept = [release for release in releases if release.number in numbers and ledger.is_whole(release)]
    slugs = current.runs_from.union(*(release.runs_from for release in kept))
    damaged = agent.check_files(app, slugs) if whole else []
    hint = f"Build it anew: shipit deploy {app}" if current.runs_from & {*damaged} else "Push its commit again"
    listed = ", ".join(f"v{number}" for number in damaged)
    yield Finding(app, f"files that are not those that were built: {listed or 'none'}", not damaged, hint)
    right = nginx.is_right(layout, load(layout.settings), app)
    yield Finding(app, "the proxy's file is as the ledger says", right, mends=True)
    found = agent.processes(app)
    up = [p for p in found if p.release == current.runs_as and p.state.value == "running"]
    wanted = 0 if state.stopped else len(current.running())
    yield Finding(app, f"{len(up)} of {wanted} processes running", len(up) == wanted, f"shipit logs {app}", mends=True)
    ending = [f"{p.process}.{p.index}" for p in up if keeps_ending(p, time.time())]
    told = f"processes that end again and again: {', '.join(ending) or 'none'}"
    yield Finding(app, told, not ending, f"See why: shipit status {app}")
    yield from tls_findings(ledger, state, current, layout)
    if wanted and takes_requests(current):
        # A process that has only just been started, perhaps by --fix, may need a moment.
        patience = max([0.0, *(p.since + LOADS for p in up)])
        while (silent := silence(ledger, current)) and time.time() < patience:
            time.sleep(0.1)
        yield Finding(
            app, f"{current.name} answers{f' not: {silent}' if silent else ''}", not silent, f"shipit logs {app}"
        )
    yield from storage_findings(ledger, state, layout, agent)
    others = {p.release for p in found if p.release != current.runs_as and p.state.value == "running"}
    # The release's worker stops them when they have finished their requests.
    draining = ledger.worker_lives(current.number)
    strays = sorted(f"v{n}" for n in others if not (draining and n < current.number) and not ledger.worker_lives(n))
    yield Finding(app, f"processes of other releases: {', '.join(strays) or 'none'}", not strays, mends=True)
    if current.scheduled and not state.stopped:
        waits = {timed.process for timed in engines.here(layout).timed(current) if timed.next or timed.running}
        lost = [kind.type for kind, _ in current.scheduled if kind.type not in {*waits, *state.suspended}]
        yield Finding(app, f"nothing starts by the clock: {', '.join(lost) or 'none'}", not lost, mends=True)
    if current.origin:
        astray = source_of(ledger.paths, current.origin).astray(current)
        yield Finding(app, astray or f"{current.origin.kind} is as the live release is", not astray, mends=True)


def tls_findings(ledger: Ledger, state: AppState, current: Release, layout: Layout) -> Iterator[Finding]:
    """Whether each name that should be served by HTTPS is, and whether its certificate is renewed."""
    settings, store, now = load(layout.settings), certificates.Certificates(ledger.paths), time.time()
    for name in domains(ledger.app, state, current, settings):
        try:
            one = store.serving(name, now)
        except Corrupt as failure:
            yield Finding(ledger.app, failure.message, False, f"Have a new one: shipit tls:renew {ledger.app}")
            continue
        last = store.last_try(name)
        renewed = f"When it is mended: shipit tls:renew {ledger.app}"
        if state.https is Https.OFF:
            continue
        if one is not None:
            hint = f"Bring the next one: shipit certs:add {ledger.app}" if one.origin is Origin.OWN else renewed
            told = (
                f"the certificate for {name} lasts until {time.strftime('%Y-%m-%d %H:%M', time.gmtime(one.not_after))}"
            )
            yield Finding(ledger.app, told, not one.late(now) and not last.why, f"{last.why}\n{hint}".strip())
        elif last.why:
            yield Finding(ledger.app, f"no certificate for {name}", False, f"{last.why}\n{renewed}")


def storage_findings(ledger: Ledger, state: AppState, layout: Layout, agent: Agent) -> Iterator[Finding]:
    """How much of its quota the app's data takes."""
    most = quota.of(state, load(layout.settings))
    if not most:
        return
    try:
        used = storage.measure(ledger, agent, most).used
    except Failure as failure:
        yield Finding(ledger.app, failure.message, False, failure.hint)
        return
    well = quota.level(used, most) is quota.Level.WELL
    yield Finding(ledger.app, quota.sentence(ledger.app, used, most), well, quota.hint(ledger.app))


def mend(layout: Layout, app: AppName, agent: Agent) -> list[str]:
    """Make one app equal to its ledger; returns what was done. Leaves a release alone that a worker is making."""
    ledger = Ledger(layout.app(app))
    done = repair(ledger)
    agent.create_app(app)
    for release in ledger.releases():
        if release.status.final or ledger.worker_lives(release.number):
            continue
        live = release.number == ledger.current_number()
        if not live:
            agent.prune(app, [release.number])
        if live:
            verdict.live(ledger, release)
        else:
            verdict.failed(ledger, release, "The worker was killed.")
        done.append(f"{release.name} was left {'unfinished' if live else 'half made'}")
    current = ledger.current()
    if current and current.origin and (told := source_of(ledger.paths, current.origin).follow(current)):
        done.append(told)
    for process in agent.processes(app) if current else ():
        down = process.state is ProcessState.FAILED or keeps_ending(process, time.time())
        if current and process.release == current.runs_as and down:
            verdict.crashed(ledger, current.number, process.process, process.index, apart=True)
    return [*done, *agent.reconcile(app)]


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


def _user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


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
