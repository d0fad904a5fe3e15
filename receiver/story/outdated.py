"""Finds processes that still use programs or libraries that the system has replaced (an OpenSSL with a hole). As
root."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from receiver.engines import all as engines
from receiver.errors import Failure
from receiver.ledger.ledger import Ledger, apps
from receiver.paths import Layout
from receiver.proxy import master
from receiver.root.client import Agent
from receiver.story.finding import Finding
from receiver.system.libraries import replaced

SOME = 3  # how many names are printed


def outdated_proxy(layout: Layout) -> Finding:
    gone = replaced([pid] if (pid := master.pid(layout)) else [])
    hint = "Start it anew, without losing a request: shipit doctor --fix"
    if not engines.hints().renews_proxy:
        hint = "It runs on the new ones when this container, or shipit-supervisord, is started again."
    return Finding("host", f"nginx runs on {told(gone)}", not gone, hint, outdated=engines.hints().renews_proxy)


def outdated_apps(layout: Layout) -> Iterator[Finding]:
    """One for the live release of each app. A container has the libraries of its image, so it is left out."""
    with Agent.connect(layout.agent_socket) as agent:
        for app in apps(layout):
            with suppress(Failure):
                current = Ledger(layout.app(app)).current()
                if current is None or current.image:
                    continue
                mine = [p.pid for p in agent.processes(app) if p.pid and p.release == current.runs_as]
                gone = replaced(mine)
                if mine:
                    hint = f"Restart it, without losing a request: shipit ps:restart {app}"
                    yield Finding(app, f"{current.name} runs on {told(gone)}", not gone, hint, outdated=True)


def told(gone: list[str]) -> str:
    if not gone:
        return "the libraries that are installed"
    more = f" and {len(gone) - SOME} more" if len(gone) > SOME else ""
    return f"what the system has replaced since: {', '.join(gone[:SOME])}{more}"
