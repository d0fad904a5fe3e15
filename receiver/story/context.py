"""The effects that a story acts through; entry points make them and pass them down."""

from __future__ import annotations

from dataclasses import dataclass

from receiver.ledger.ledger import Ledger
from receiver.ledger.say import Say
from receiver.model import Change, Release
from receiver.paths import AppPaths, Layout
from receiver.root.client import Agent
from receiver.settings import Settings


@dataclass(frozen=True)
class AppContext:
    """One app on this server, as its worker sees it while holding the app's lock."""

    layout: Layout
    settings: Settings
    ledger: Ledger
    agent: Agent
    say: Say

    def keeps_stopped(self, release: Release) -> bool:
        """A stopped app stays stopped through a config change, a scale or a rollback; a push starts it again."""
        return self.ledger.state().stopped and release.change not in (Change.DEPLOY, Change.REBUILD)

    @property
    def paths(self) -> AppPaths:
        return self.ledger.paths
