"""Making an app: its users and directories, its repository, its ledger. Repeatable after a crash at any point."""

from __future__ import annotations

from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.sources.git.source import GitSource


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
