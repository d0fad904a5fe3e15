"""A ledger that was damaged from outside: told in words, never guessed, mended from what is left, nothing thrown away."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from receiver.errors import Failure
from receiver.ledger.ledger import Ledger, apps
from receiver.ledger.repair import repair
from receiver.model import Corrupt, Release, Source, Status
from receiver.names import AppName, ProcessType
from receiver.paths import Layout

APP = AppName("blog")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are written here, and no power fails."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def book(tmp_path: Path) -> Ledger:
    """v1 was live, v2 failed, v3 is live, v4 is being made."""
    book = Ledger(Layout(tmp_path).app(APP))
    book.paths.releases.mkdir(parents=True)
    book.create()
    live(book)
    book.finish(opened(book), Status.FAILED, "It did not start.")
    live(book)
    opened(book)
    return book


def opened(book: Ledger) -> Release:
    release = book.open_release(Source.GIT, "alice", builds=True, commit="a" * 40, branch="main")
    book.paths.release(release.number).slug.mkdir(parents=True)
    return book.save(replace(release, environment=release.number, formation=((ProcessType("web"), 2),)))


def live(book: Ledger) -> None:
    release = opened(book)
    book.commit(release)
    book.keep_copy(book.finish(release, Status.LIVE))


def contents(book: Ledger) -> dict[str, bytes | str]:
    """The whole ledger, by path."""
    found: dict[str, bytes | str] = {}
    for path in sorted(book.paths.releases.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def readable(book: Ledger) -> None:
    book.state()
    book.current()
    book.releases()
    book.kept()
    book.previous_good()


Damage = Callable[[bytes], list[bytes]]


def cut(raw: bytes) -> list[bytes]:
    """A file ended at every byte."""
    return [raw[:end] for end in range(len(raw))]


def changed(raw: bytes) -> list[bytes]:
    """A file with one bit changed, in each of its bytes in turn."""
    return [raw[:at] + bytes([byte ^ 1 << at % 8]) + raw[at + 1 :] for at, byte in enumerate(raw)]


@pytest.mark.parametrize("damage", [cut, changed])
@pytest.mark.parametrize("number", [1, 3])
def test_a_record_cut_or_changed_at_any_byte_is_told_and_comes_back_as_it_was(
    book: Ledger, number: int, damage: Damage
) -> None:
    record = book.paths.release(number).record
    before = contents(book)
    for raw in damage(record.read_bytes()):
        record.write_bytes(raw)
        with pytest.raises(Corrupt, match=f"The record of blog v{number} is damaged") as told:
            book.release(number)
        assert told.value.hint == "Mend it: sudo shipit doctor --fix"
        assert book.current_number() == 3, "the live release is found without any record"
        assert repair(book) == [f"the record of v{number} was damaged and is restored from its copy"]
        assert contents(book) == before
    assert repair(book) == []


@pytest.mark.parametrize("damage", [cut, changed])
@pytest.mark.parametrize("number", [2, 4])
def test_a_record_that_never_went_live_cut_or_changed_at_any_byte_is_put_aside_and_not_thrown_away(
    book: Ledger, number: int, damage: Damage
) -> None:
    paths = book.paths.release(number)
    whole, aside = paths.record.read_bytes(), paths.dir / "release.json.damaged"
    for raw in damage(whole):
        paths.record.write_bytes(raw)
        with pytest.raises(Corrupt):
            book.releases()
        assert repair(book) == [f"the record of v{number} was damaged and is put aside: {aside}"]
        readable(book)
        assert aside.read_bytes() == raw
        assert [r.number for r in book.releases()] == [n for n in (4, 3, 2, 1) if n != number]
        aside.unlink()
        paths.record.write_bytes(whole)
    paths.record.write_bytes(b"")
    repair(book)
    assert opened(book).number == 5, "the number stays used"


@pytest.mark.parametrize("damage", [cut, changed])
def test_app_json_cut_or_changed_at_any_byte_is_told_and_comes_back_as_it_was(book: Ledger, damage: Damage) -> None:
    book.change_state(lambda state: replace(state, keep=7, stopped=True))
    before = contents(book)
    for raw in damage(book.paths.state.read_bytes()):
        book.paths.state.write_bytes(raw)
        with pytest.raises(Corrupt, match=r"app\.json of blog is damaged"):
            book.state()
        assert repair(book) == ["app.json was damaged and is restored from its copy"]
        assert contents(book) == before


def test_an_app_json_that_is_gone_is_no_app_that_never_was(book: Ledger) -> None:
    before = contents(book)
    book.paths.state.unlink()
    assert apps(book.paths.layout) == [APP], "doctor looks at it"
    with pytest.raises(Corrupt, match="is gone"):
        book.state()
    repair(book)
    assert contents(book) == before


@pytest.mark.parametrize("target", [None, "v9", "nowhere", "v3x"])
def test_a_current_that_leads_nowhere_is_told_and_found_again(book: Ledger, target: str | None) -> None:
    before = contents(book)
    book.paths.current.unlink()
    if target:
        book.paths.current.symlink_to(target)
    with pytest.raises(Corrupt):
        book.current_number()
    with pytest.raises(Corrupt):
        book.open_release(Source.GIT, "bob")
    assert repair(book) == ["`current` was lost and points at v3 again, which was live last"]
    assert contents(book) == before


def test_a_damaged_record_does_not_hide_which_release_is_live(book: Ledger) -> None:
    book.paths.current.unlink()
    book.paths.release(3).record.write_bytes(b"{")
    repair(book)
    readable(book)
    assert book.current_number() == 3


def test_an_app_that_was_never_live_has_no_current_and_that_is_no_damage(tmp_path: Path) -> None:
    book = Ledger(Layout(tmp_path).app(APP))
    book.paths.releases.mkdir(parents=True)
    book.create()
    book.finish(opened(book), Status.FAILED)
    assert book.current_number() == 0 and book.current() is None
    assert repair(book) == []


@pytest.mark.parametrize("damage", [cut, changed])
def test_where_nothing_good_is_left_nothing_is_touched(book: Ledger, damage: Damage) -> None:
    paths = book.paths.release(3)
    for path in (paths.record, paths.record_copy):
        path.write_bytes(damage(path.read_bytes())[50])
    before = contents(book)
    with pytest.raises(Failure, match="v3, which is live, is damaged, and it has no good copy"):
        repair(book)
    assert contents(book) == before
    for path in (book.paths.state, book.paths.state_copy):
        path.write_bytes(damage(path.read_bytes())[0])
    with pytest.raises(Corrupt):
        repair(book)
