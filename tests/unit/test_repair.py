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
from receiver.model import Change, Origin, Release, Status
from receiver.names import AppName, TypeName
from receiver.paths import Layout
from receiver.records import Corrupt

APP = AppName("blog")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files are written here, and no power fails."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """v1 was live, v2 failed, v3 is live, v4 is being made."""
    ledger = Ledger(Layout(tmp_path).app(APP))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    live(ledger)
    ledger.finish(opened(ledger), Status.FAILED, "It did not start.")
    live(ledger)
    opened(ledger)
    return ledger


def opened(ledger: Ledger) -> Release:
    release = ledger.open_release(Change.DEPLOY, "alice", builds=True, origin=Origin("git", "a" * 40, ref="main"))
    ledger.paths.release(release.number).slug.mkdir(parents=True)
    return ledger.save(replace(release, environment=release.number, formation=((TypeName("web"), 2),)))


def live(ledger: Ledger) -> None:
    release = opened(ledger)
    ledger.commit(release)
    ledger.keep_copy(ledger.finish(release, Status.LIVE))


def contents(ledger: Ledger) -> dict[str, bytes | str]:
    """The whole ledger, by path."""
    found: dict[str, bytes | str] = {}
    for path in sorted(ledger.paths.releases.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink())
        elif path.is_file():
            found[str(path)] = path.read_bytes()
    return found


def readable(ledger: Ledger) -> None:
    ledger.state()
    ledger.current()
    ledger.releases()
    ledger.kept()
    ledger.previous_good()


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
    ledger: Ledger, number: int, damage: Damage
) -> None:
    record = ledger.paths.release(number).record
    before = contents(ledger)
    for raw in damage(record.read_bytes()):
        record.write_bytes(raw)
        with pytest.raises(Corrupt, match=f"The record of blog v{number} is damaged") as told:
            ledger.release(number)
        assert told.value.hint == "Mend it: shipit doctor --fix"
        assert ledger.current_number() == 3, "the live release is found without any record"
        assert repair(ledger) == [f"the record of v{number} was damaged and is restored from its copy"]
        assert contents(ledger) == before
    assert repair(ledger) == []


@pytest.mark.parametrize("damage", [cut, changed])
@pytest.mark.parametrize("number", [2, 4])
def test_a_record_that_never_went_live_cut_or_changed_at_any_byte_is_put_aside_and_not_thrown_away(
    ledger: Ledger, number: int, damage: Damage
) -> None:
    paths = ledger.paths.release(number)
    whole, aside = paths.record.read_bytes(), paths.dir / "release.json.damaged"
    for raw in damage(whole):
        paths.record.write_bytes(raw)
        with pytest.raises(Corrupt):
            ledger.releases()
        assert repair(ledger) == [f"the record of v{number} was damaged and is put aside: {aside}"]
        readable(ledger)
        assert aside.read_bytes() == raw
        assert [r.number for r in ledger.releases()] == [n for n in (4, 3, 2, 1) if n != number]
        aside.unlink()
        paths.record.write_bytes(whole)
    paths.record.write_bytes(b"")
    repair(ledger)
    assert opened(ledger).number == 5, "the number stays used"


@pytest.mark.parametrize("damage", [cut, changed])
def test_app_json_cut_or_changed_at_any_byte_is_told_and_comes_back_as_it_was(ledger: Ledger, damage: Damage) -> None:
    ledger.change_state(lambda state: replace(state, keep=7, stopped=True))
    before = contents(ledger)
    for raw in damage(ledger.paths.state.read_bytes()):
        ledger.paths.state.write_bytes(raw)
        with pytest.raises(Corrupt, match=r"app\.json of blog is damaged"):
            ledger.state()
        assert repair(ledger) == ["app.json was damaged and is restored from its copy"]
        assert contents(ledger) == before


def test_an_app_json_that_is_gone_is_no_app_that_never_was(ledger: Ledger) -> None:
    before = contents(ledger)
    ledger.paths.state.unlink()
    assert apps(ledger.paths.layout) == [APP], "doctor looks at it"
    with pytest.raises(Corrupt, match="is gone"):
        ledger.state()
    repair(ledger)
    assert contents(ledger) == before


@pytest.mark.parametrize("target", [None, "v9", "nowhere", "v3x"])
def test_a_current_that_leads_nowhere_is_told_and_found_again(ledger: Ledger, target: str | None) -> None:
    before = contents(ledger)
    ledger.paths.current.unlink()
    if target:
        ledger.paths.current.symlink_to(target)
    with pytest.raises(Corrupt):
        ledger.current_number()
    with pytest.raises(Corrupt):
        ledger.open_release(Change.DEPLOY, "bob")
    assert repair(ledger) == ["`current` was lost and points at v3 again, which was live last"]
    assert contents(ledger) == before


def test_a_damaged_record_does_not_hide_which_release_is_live(ledger: Ledger) -> None:
    ledger.paths.current.unlink()
    ledger.paths.release(3).record.write_bytes(b"{")
    repair(ledger)
    readable(ledger)
    assert ledger.current_number() == 3


def test_an_app_that_was_never_live_has_no_current_and_that_is_no_damage(tmp_path: Path) -> None:
    ledger = Ledger(Layout(tmp_path).app(APP))
    ledger.paths.releases.mkdir(parents=True)
    ledger.create()
    ledger.finish(opened(ledger), Status.FAILED)
    assert ledger.current_number() == 0 and ledger.current() is None
    assert repair(ledger) == []


@pytest.mark.parametrize("damage", [cut, changed])
def test_where_nothing_good_is_left_nothing_is_touched(ledger: Ledger, damage: Damage) -> None:
    paths = ledger.paths.release(3)
    for path in (paths.record, paths.record_copy):
        path.write_bytes(damage(path.read_bytes())[50])
    before = contents(ledger)
    with pytest.raises(Failure, match="v3, which is live, is damaged, and it has no good copy"):
        repair(ledger)
    assert contents(ledger) == before
    for path in (ledger.paths.state, ledger.paths.state_copy):
        path.write_bytes(damage(path.read_bytes())[0])
    with pytest.raises(Corrupt):
        repair(ledger)
