"""What pruning may remove: nothing that something points at, whatever the history was."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.ledger.ledger import Ledger
from receiver.model import Change, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.settings import Settings
from receiver.sources.git.repository import Git
from receiver.story.context import AppContext
from receiver.story.retire import prune

APP = AppName("blog")


class Agent:
    """Removes as the real one does, and knows which processes run."""

    def __init__(self, ledger: Ledger, running: set[int]) -> None:
        self._book, self._running = ledger, running

    def in_use(self, app: AppName) -> set[int]:
        return self._running

    def prune(self, app: AppName, releases: Sequence[int]) -> None:
        for number in releases:
            slug = self._book.paths.release(number).slug
            if slug.exists():
                slug.rmdir()


# One release: whether it shares an earlier one's slug, and which; whose environment it has; whose processes it took over
# (0: nobody's); how it ended.
PAST = st.lists(
    st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.sampled_from(Status)),
    min_size=1,
    max_size=20,
)


@given(PAST, st.integers(1, 6), st.sets(st.integers(1, 20)), st.sets(st.integers(1, 20)))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_something_points_at_or_runs_from_is_pruned(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    past: list[tuple[bool, int, int, int, Status]],
    keep: int,
    pinned: set[int],
    running: set[int],
) -> None:
    monkeypatch.setattr(Git, "unpin", lambda self, number: None)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    ledger = Ledger(Layout(tmp_path_factory.mktemp("ledger")).app(APP))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    for shares, slug, environment, taken, status in past:
        release = ledger.open_release(Change.DEPLOY, "a", builds=True)
        number = release.number
        slug = 1 + slug % (number - 1) if shares and number > 1 else number
        taken = taken % number if shares else 0
        release = ledger.save(replace(release, slug=slug, environment=1 + environment % number, took_over=taken))
        ledger.paths.release(number).slug.mkdir(parents=True)
        if status is Status.LIVE:
            ledger.commit(release)
        if status.final:
            ledger.finish(release, status)
    ledger.change_state(lambda s: replace(s, keep=keep, pinned=tuple(pinned)))
    # What took over another's processes has none of its own.
    running &= {release.number for release in ledger.releases() if not release.took_over}
    previous = ledger.previous_good()

    prune(
        AppContext(
            ledger.paths.layout, Settings(), ledger, cast(Any, Agent(ledger, running)), cast(Any, SimpleNamespace())
        )
    )

    current = ledger.current_number()
    good = [r.number for r in ledger.releases() if r.status is Status.LIVE]
    pointing = {*running, *good[: max(keep, 2)], *(pinned & set(good)), *(r.number for r in ledger.unfinished())}
    pointing |= ({current} if current else set()) | ({previous.number} if previous else set())
    for number in pointing:
        release = ledger.release(number)
        for used in {release.slug, release.environment, release.took_over} - {0}:
            assert ledger.paths.release(used).slug.is_dir(), f"v{number} has lost what is v{used}'s"
    left = {number for number in ledger.numbers() if ledger.paths.release(number).slug.is_dir()}
    used = {n for number in pointing for n in ledger.release(number).needs}
    assert left <= used, "what nothing points at is gone"
