"""Which pool of kept connections a release gets: one that no other release's connection can be in."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from receiver.ledger import pool
from receiver.names import AppName
from receiver.paths import POOLS, Layout, ReleasePaths


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long each switch waited; time stands still meanwhile."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


def release(root: Path, number: int) -> ReleasePaths:
    paths = Layout(root).app(AppName("blog")).release(number)
    paths.dir.mkdir(parents=True, exist_ok=True)
    return paths


def mark(paths: ReleasePaths) -> list[int]:
    return [index for index in range(POOLS) if paths.pool(index).exists()]


def switches(root: Path, count: int) -> list[int]:
    """The pools of so many releases, each of which replaces the one before."""
    pools = []
    live = None
    for number in range(1, count + 1):
        pool.enter(release(root, number), live)
        live = release(root, number)
        pools += mark(live)
    return pools


def test_each_switch_moves_on_to_the_next_pool(tmp_path: Path, waits: list[float]) -> None:
    assert switches(tmp_path, 7) == [1, 2, 0, 1, 2, 0, 1]


def test_a_pool_is_used_again_when_it_is_clean_and_not_before(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(pool, "_now", lambda: now)
    switches(tmp_path, POOLS)
    assert not waits
    pool.enter(release(tmp_path, 4), release(tmp_path, 3))
    assert waits == [pool.CLEAN]
    now += pool.CLEAN
    pool.enter(release(tmp_path, 5), release(tmp_path, 4))
    assert len(waits) == 1


def test_what_was_noted_before_a_reboot_delays_no_switch(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(pool, "_now", lambda: now)
    switches(tmp_path, POOLS)
    now = 20.0
    pool.enter(release(tmp_path, 4), release(tmp_path, 3))
    assert not waits


def test_the_release_that_is_live_already_stays_in_its_pool(tmp_path: Path, waits: list[float]) -> None:
    one, two = release(tmp_path, 1), release(tmp_path, 2)
    pool.enter(one, None)
    pool.enter(two, one)
    for live in (two, None):  # None: the link was lost, and is put back
        pool.enter(two, live)
        assert mark(two) == [2]


def test_a_damaged_mark_and_one_of_an_older_shipit_stop_nothing(tmp_path: Path, waits: list[float]) -> None:
    one, two = release(tmp_path, 1), release(tmp_path, 2)
    for content in ("", "nonsense", "1 2"):
        one.pool(1).write_text(content)
        pool.enter(two, one)
        assert len(mark(two)) == 1
    assert mark(release(tmp_path, 3)) == []
