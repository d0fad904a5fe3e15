"""What `shipit doctor --fix` does for one app."""

from __future__ import annotations

import time

from receiver.engines.base import ProcessState, keeps_ending
from receiver.ledger.ledger import Ledger
from receiver.ledger.repair import repair
from receiver.names import AppName
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.sources.all import source_of
from receiver.story import verdict


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
