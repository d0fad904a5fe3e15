"""What becomes of the old release after a switch: it finishes and is stopped, or stays for the case of a rollback."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from receiver.ledger.ledger import Ledger
from receiver.model import Change, Release, Status
from receiver.names import AppName, TypeName
from receiver.settings import Settings
from receiver.story import retire as story
from receiver.story.context import AppContext

APP, WEB = AppName("blog"), TypeName("web")


class Agent:
    """Knows of which releases there is anything, and remembers what it was asked."""

    def __init__(self, *known: int, can: bool = True) -> None:
        self.known, self.can, self.asked = known, can, list[tuple[str, int]]()

    def remainders(self, app: AppName) -> set[int]:
        return {*self.known}

    def keep_warm(self, app: AppName, number: int) -> bool:
        self.asked.append(("keep_warm", number))
        return self.can

    def stop(self, app: AppName, number: int, *, wait: bool) -> None:
        self.asked.append(("stop", number))


def live(ledger: Ledger, **values: Any) -> Release:
    release = ledger.finish(ledger.open_release(Change.DEPLOY, "a", **values), Status.LIVE)
    ledger.commit(release)
    return release


def retire(ledger: Ledger, release: Release, agent: Agent) -> list[tuple[str, int]]:
    story.retire(
        AppContext(ledger.paths.layout, Settings(), ledger, cast(Any, agent), cast(Any, SimpleNamespace(warn=print))),
        release,
    )
    return agent.asked


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(story, "memory_is_free", lambda: True)


def test_every_other_release_is_stopped_and_none_that_is_newer(ledger: Ledger) -> None:
    for _ in range(3):
        live(ledger)
    assert retire(ledger, ledger.release(2), Agent(1, 2, 3)) == [("stop", 1)]


def test_only_the_release_that_was_replaced_is_kept_warm(ledger: Ledger) -> None:
    for _ in range(2):
        live(ledger)
    new = live(ledger, warm=600)
    assert retire(ledger, new, Agent(1, 2, 3)) == [("keep_warm", 3), ("stop", 1)]


def test_what_the_live_release_took_over_is_not_stopped_and_what_the_last_one_did_is_kept(ledger: Ledger) -> None:
    for _ in range(2):
        live(ledger)
    third = live(ledger, took_over=1, warm=600)
    assert retire(ledger, third, Agent(1, 2)) == [("keep_warm", 3)]
    fourth = live(ledger, warm=600)
    assert retire(ledger, fourth, Agent(1, 4)) == [("keep_warm", 4)], "v1 are the processes of v3, which v4 replaced"


def test_where_it_cannot_be_kept_it_is_stopped(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    live(ledger)
    new = live(ledger, warm=600)
    assert retire(ledger, new, Agent(1, 2, can=False)) == [("keep_warm", 2), ("stop", 1)]
    monkeypatch.setattr(story, "memory_is_free", lambda: False)
    assert retire(ledger, new, Agent(1, 2)) == [("stop", 1)]
    assert retire(ledger, replace(new, warm=0), Agent(1, 2)) == [("stop", 1)]


@pytest.mark.parametrize(("available", "free"), [(25, True), (24, False)])
def test_memory_is_free_as_long_as_a_quarter_is_available(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, available: int, free: bool
) -> None:
    monkeypatch.undo()
    told = tmp_path / "meminfo"
    told.write_text(
        f"MemTotal:      100 kB\nMemFree:         1 kB\nMemAvailable:    {available} kB\nHugePages_Total: 0\n"
    )
    assert story.memory_is_free(told) is free
