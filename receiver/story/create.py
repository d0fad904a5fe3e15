"""Making an app: its users and directories, its repository, its ledger. Repeatable after a crash at any point."""

from __future__ import annotations

from receiver.host.client import Agent
from receiver.host.ledger import Ledger
from receiver.host.source import GitSource
from receiver.names import AppName
from receiver.paths import Layout


def create_app(layout: Layout, app: AppName, agent: Agent) -> bool:
    """Make the app if it is not there; returns whether it was made. `app.json` comes last: then it exists."""
    ledger = Ledger(layout.app(app))
    if ledger.exists():
        return False
    agent.create_app(app)
    GitSource(ledger.paths.repo).create()
    ledger.paths.runs.mkdir(exist_ok=True)
    ledger.create()
    return True
