from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from receiver.errors import NotFound
from receiver.ledger import pool
from receiver.ledger.ledger import FINAL, SETTLE_EVERY, Ledger
from receiver.model import AppState, Change, Release, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.records import Corrupt, encode

APP = AppName("blog")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger(Layout(tmp_path).app(APP))
    ledger.paths.releases.mkdir(parents=True)
    ledger.paths.slugs.mkdir()
    ledger.create()
    return ledger


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many releases in no time: no nginx keeps connections here, and what is asked of them is what is read."""
    monkeypatch.setattr(pool, "CLEAN", 0.0)


def live(ledger: Ledger, *, slug: bool = True, **values: object) -> Release:
    """A release that went live: with a slug of its own unless it shares another's."""
    release = ledger.open_release(Change.DEPLOY, "alice", builds=slug, **values)
    if slug:
        ledger.paths.release(release.number).slug.mkdir()
        release = ledger.save(replace(release, environment=release.environment or release.number))
    ledger.commit(release)
    return ledger.finish(release, Status.LIVE)


def test_numbers_only_grow(ledger: Ledger) -> None:
    first = ledger.open_release(Change.DEPLOY, "alice")
    ledger.finish(first, Status.FAILED, "no")
    assert ledger.open_release(Change.DEPLOY, "bob").number == first.number + 1


def test_an_opening_that_was_cut_short_burns_its_number_and_harms_nothing(ledger: Ledger) -> None:
    ledger.paths.release(1).dir.mkdir()
    assert ledger.open_release(Change.DEPLOY, "alice").number == 2
    assert [r.number for r in ledger.releases()] == [2]


def test_the_current_release_is_the_committed_one(ledger: Ledger) -> None:
    assert ledger.current() is None
    first = live(ledger)
    ledger.open_release(Change.DEPLOY, "bob")
    current = ledger.current()
    assert current is not None and current.number == first.number


def test_a_record_of_another_app_is_not_believed(ledger: Ledger) -> None:
    release = live(ledger)
    ledger.paths.release(release.number).record.write_bytes(encode(replace(release, app=AppName("shop"))))
    with pytest.raises(Corrupt, match="belongs to shop"):
        ledger.release(release.number)


def test_an_app_that_does_not_exist_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        Ledger(Layout(tmp_path).app(APP)).state()


def test_a_rollback_without_a_number_goes_back_and_not_to_and_fro(ledger: Ledger) -> None:
    one, two, three = live(ledger), live(ledger), live(ledger)
    previous = ledger.previous_good()
    assert previous is not None and previous.number == two.number
    live(ledger, slug=False, target=two.number, config_base=two.number)
    current = ledger.current()
    assert current is not None
    ledger.save(replace(current, change=Change.ROLLBACK, slug=two.number, environment=two.number))
    previous = ledger.previous_good()
    assert previous is not None and previous.number == one.number
    assert three.number not in (one.number, two.number)


def test_what_was_pruned_is_gone_even_if_another_release_runs_its_slug(ledger: Ledger) -> None:
    one = live(ledger)
    two = live(ledger)
    ledger.save(replace(two, slug=one.number, environment=one.number))
    ledger.paths.release(one.number).sockets_link.unlink()
    assert not ledger.is_whole(one) and ledger.is_whole(ledger.release(two.number))


def test_a_failed_release_is_never_what_a_rollback_returns_to(ledger: Ledger) -> None:
    one = live(ledger)
    ledger.finish(ledger.open_release(Change.DEPLOY, "alice", builds=True), Status.FAILED, "no")
    live(ledger)
    previous = ledger.previous_good()
    assert previous is not None and previous.number == one.number


@pytest.mark.usefixtures("at_once")
@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.booleans()), min_size=1, max_size=25),
    st.integers(1, 6),
    st.sets(st.integers(1, 25)),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_that_a_kept_release_points_at_is_ever_pruned(
    tmp_path_factory: pytest.TempPathFactory, history: list[tuple[bool, int, bool]], keep: int, pinned: set[int]
) -> None:
    ledger = Ledger(Layout(tmp_path_factory.mktemp("ledger")).app(APP))
    ledger.paths.releases.mkdir(parents=True)
    ledger.paths.slugs.mkdir()
    ledger.create()
    for builds, shared, good in history:
        number = len(ledger.numbers()) + 1
        point = 1 + shared % (number - 1) if number > 1 and not builds else number
        release = ledger.open_release(Change.DEPLOY, "a", builds=point == number)
        release = ledger.save(replace(release, slug=point, environment=1 + shared % number))
        if good:
            ledger.commit(release)
        ledger.finish(release, Status.LIVE if good else Status.FAILED)
    ledger.change_state(lambda s: replace(s, keep=keep, pinned=tuple(p for p in pinned if p <= len(history))))
    kept, current = ledger.kept(), ledger.current()
    if current is not None:
        assert {current.number, current.slug, current.environment} <= kept
    for release in ledger.releases():
        if release.number in ledger.state().pinned and release.status is Status.LIVE:
            assert {release.number, release.slug, release.environment} <= kept
    newest = [r for r in ledger.releases() if r.status is Status.LIVE][:keep]
    assert {r.number for r in newest if current and r.number <= current.number} <= kept


def test_a_change_of_state_is_whole_or_not_at_all(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    before = ledger.paths.state.read_bytes()

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        ledger.change_state(lambda state: replace(state, keep=9))
    monkeypatch.undo()
    assert ledger.paths.state.read_bytes() == before
    assert isinstance(ledger.state(), AppState)
    assert not list(ledger.paths.releases.glob(".*.new"))


@pytest.mark.usefixtures("at_once")
def test_a_long_history_costs_a_push_next_to_nothing(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(100):
        live(ledger)
    ledger.change_state(lambda state: replace(state, pinned=(3,)))
    hung = ledger.open_release(Change.DEPLOY, "bob")
    read = []
    real = Ledger.release
    monkeypatch.setattr(Ledger, "release", lambda self, number: read.append(number) or real(self, number))
    assert [r.number for r in ledger.unfinished()] == [hung.number]
    assert ledger.kept() == {3, *range(96, 101), hung.number}
    assert ledger.previous_good() is not None
    assert len(read) < 20


@given(st.text())
def test_what_a_subject_says_is_no_verdict(subject: str) -> None:
    for text in (subject, '"status": "live"', ' "status": "failed",'):
        release = Release(APP, 1, Change.DEPLOY, Status.BUILDING, "alice", 1.0, message=text)
        assert not any(word in encode(release) for word in FINAL)
        assert any(word in encode(replace(release, status=Status.FAILED)) for word in FINAL)


@pytest.mark.usefixtures("at_once")
def test_what_is_settled_is_not_read_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push must not pay for a history of ten thousand releases."""
    for _ in range(SETTLE_EVERY + 3):
        live(ledger)
    hung = ledger.open_release(Change.DEPLOY, "alice")
    ledger.settle(hung.number - 1)
    read: list[str] = []
    original = Path.read_bytes

    def noted(path: Path) -> bytes:
        read.append(path.parent.name)
        return original(path)

    monkeypatch.setattr(Path, "read_bytes", noted)
    assert [r.number for r in ledger.unfinished()] == [hung.number]
    assert set(read) == {"releases", hung.name}


@pytest.mark.parametrize("found", [b"", b"1", b"x\n"])
def test_a_damaged_note_of_what_is_settled_hides_nothing(ledger: Ledger, found: bytes) -> None:
    live(ledger)
    hung = ledger.open_release(Change.DEPLOY, "alice")
    ledger.paths.settled.write_bytes(found)
    assert [r.number for r in ledger.unfinished()] == [hung.number]
