"""Which config vars are kept out of a release's log: those that its processes will have."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from receiver.ledger.ledger import Ledger
from receiver.model import Change
from receiver.names import AppName
from receiver.paths import Layout
from receiver.story.context import AppContext
from receiver.story.deploy import hide_config

BLOG = AppName("blog")
CONFIG = {1: {"TOKEN": "the old one"}, 2: {"TOKEN": "the new one"}}


@pytest.mark.parametrize(
    ("source", "builds", "hidden"),
    [(Change.CONFIG, False, "the new one"), (Change.DEPLOY, True, "the old one"), (Change.SCALE, False, "the new one")],
)
def test_what_its_processes_will_have_is_hidden(tmp_path: Path, source: Change, builds: bool, hidden: str) -> None:
    ledger = Ledger(Layout(tmp_path).app(BLOG))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    ledger.open_release(Change.DEPLOY, "alice", builds=True)
    release = ledger.open_release(source, "alice", builds=builds, config_base=1)
    said: list[str] = []
    agent = SimpleNamespace(read_config=lambda app, number: CONFIG[number])
    host: Any = SimpleNamespace(agent=agent, say=SimpleNamespace(hide=said.extend))
    hide_config(cast(AppContext, host), release)
    assert said == [hidden]
