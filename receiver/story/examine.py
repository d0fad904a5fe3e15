"""What `shipit doctor` checks of an app: every promise about it that can be checked by looking. Runs as `shipit`.

It only looks, as examine_host.py does for the machine; repairs (mend.py) are the agent's RECONCILE, which also runs at
boot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

from receiver.engines import all as engines
from receiver.engines.base import keeps_ending
from receiver.errors import Failure
from receiver.ledger.ledger import Ledger
from receiver.model import AppState, Https, Release
from receiver.names import AppName
from receiver.ops import quota
from receiver.paths import Layout, app_user, build_user
from receiver.proxy import certificates, nginx
from receiver.proxy.certificates import Origin
from receiver.proxy.endpoint import silence, takes_requests
from receiver.proxy.vhost import domains
from receiver.records import Corrupt
from receiver.root.client import Agent
from receiver.settings import load
from receiver.sources.all import source_of
from receiver.story import storage
from receiver.story.finding import Finding, has_user

LOADS = 10.0  # seconds after its start in which a process may not listen yet


def app_findings(layout: Layout, app: AppName, agent: Agent) -> Iterator[Finding]:
    """Check one app: ledger, slug, processes, branch."""
    ledger = Ledger(layout.app(app))
    try:
        state, current, releases = ledger.state(), ledger.current(), ledger.releases()
    except Failure as failure:
        yield Finding(app, failure.message, False, mends=True)
        return
    yield Finding(app, f"ledger of {len(releases)} releases", True)
    users = has_user(app_user(app)) and has_user(build_user(app))
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
