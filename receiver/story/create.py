"""Making an app: its users and directories, its repository, its ledger. Repeatable after a crash at any point."""

from __future__ import annotations

from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.sources import all as sources
from receiver.story.domains import keep_default_free
from receiver.system import disk


def create_app(layout: Layout, app: AppName, agent: Agent, settings: Settings) -> bool:
    """Make the app if it is not there; returns whether it was made. `app.json` comes last: then it exists.

    Raises Rejected when another app has been given the name that this one would answer at.
    """
    ledger = Ledger(layout.app(app))
    if ledger.exists():
        return False
    with disk.locked(layout.domains_lock, wait=True):
        keep_default_free(layout, app, settings)
        agent.create_app(app)
        sources.create(ledger.paths)
        ledger.paths.runs.mkdir(exist_ok=True)
        ledger.create()
    return True
