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


def marks(paths: ReleasePaths) -> list[str]:
    return sorted(path.name for path in paths.dir.iterdir())


def switches(root: Path, count: int) -> list[str]:
    """The pools of so many releases, each of which replaces the one before."""
    pools = []
    live = None
    for number in range(1, count + 1):
        pool.enter(release(root, number), live, 2)
        live = release(root, number)
        pools += marks(live)
    return pools


def at(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    monkeypatch.setattr(pool, "_now", lambda: now)


def test_each_switch_moves_on_to_the_pool_that_was_left_longest_ago(tmp_path: Path, waits: list[float]) -> None:
    assert switches(tmp_path, 7) == ["pool.0", "pool.1", "pool.2"] * 2 + ["pool.0"]


def test_a_pool_is_used_again_when_it_is_clean_and_not_before(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 1000.0)
    switches(tmp_path, POOLS)
    assert not waits
    pool.enter(release(tmp_path, 4), release(tmp_path, 3), 1)
    assert waits == [pool.CLEAN]
    at(monkeypatch, 1000.0 + pool.CLEAN)
    pool.enter(release(tmp_path, 5), release(tmp_path, 4), 1)
    assert len(waits) == 1


def test_a_release_comes_to_rest_in_pool_0_when_that_is_clean(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    for web, names in ((1, ["one", "pool.0"]), (3, ["pool.0"])):
        root = tmp_path / str(web)
        one, two, three = (release(root, number) for number in (1, 2, 3))
        at(monkeypatch, 1000.0)
        pool.enter(one, None, web)
        assert marks(one) == names, "nothing was before"
        pool.enter(two, one, web)
        pool.rest(two, web)
        assert marks(two) == ["pool.1"], "not clean yet"
        at(monkeypatch, 1000.0 + pool.CLEAN)
        pool.rest(two, web)
        assert marks(two) == names
        # Pool 1 was left just now, pool 2 never.
        pool.enter(three, two, web)
        assert marks(three) == ["pool.2"]
    assert not waits


def test_killed_while_it_came_to_rest_both_pools_count_as_used(tmp_path: Path, waits: list[float]) -> None:
    two, three = release(tmp_path, 2), release(tmp_path, 3)
    for index in (0, 1):
        two.pool(index).write_text("1.0 1.0 1.0\n")
    pool.enter(three, two, 1)
    assert marks(three) == ["pool.2"]


def test_what_was_noted_before_a_reboot_delays_no_switch(
    tmp_path: Path, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, 1_000_000.0)
    switches(tmp_path, POOLS)
    at(monkeypatch, 20.0)
    pool.enter(release(tmp_path, 4), release(tmp_path, 3), 1)
    assert not waits


def test_the_release_that_is_live_already_stays_in_its_pool(tmp_path: Path, waits: list[float]) -> None:
    one, two = release(tmp_path, 1), release(tmp_path, 2)
    pool.enter(one, None, 1)
    pool.enter(two, one, 1)
    for live in (two, None):  # None: the link was lost, and is put back
        pool.enter(two, live, 1)
        assert marks(two) == ["pool.1"]


def test_a_damaged_mark_and_one_of_an_older_shipit_stop_nothing(tmp_path: Path, waits: list[float]) -> None:
    one, two = release(tmp_path, 1), release(tmp_path, 2)
    pool.enter(two, one, 1)
    assert marks(two) == ["pool.1"], "what has no mark is in pool 0"
    for content in ("", "nonsense", "1 2"):
        one.pool(1).write_text(content)
        pool.enter(two, one, 1)
        assert marks(two) == ["one", "pool.0"]
