"""Fixtures that more than one module uses."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_lab import Lab

from receiver.ledger.ledger import Ledger
from receiver.names import AppName
from receiver.paths import Layout
from receiver.proxy import nginx
from receiver.root import accounts, agent


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """The ledger of an app `blog` that has no release yet."""
    ledger = Ledger(Layout(tmp_path).app(AppName("blog")))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    return ledger


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    monkeypatch.setattr(agent, "allowed", lambda connection: True)
    monkeypatch.setattr(accounts, "ids_of", lambda paths: accounts.Ids(os.getuid(), os.getgid(), os.getuid()))
    monkeypatch.setattr(nginx, "apply", lambda layout, settings, app: True)
    made = Lab(tmp_path)
    yield made
    made.close()
