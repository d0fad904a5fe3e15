"""The server's clock jumps, years to and fro between any two looks at it: nothing hangs, nothing is decided by it."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.cli import out
from receiver.errors import Busy, Unhealthy
from receiver.ledger.follow import follow
from receiver.ledger.ledger import Ledger
from receiver.ledger.queue import queued
from receiver.model import Change, Check, CheckKind, Listen, ProcessType, Release, Status
from receiver.names import AppName, TypeName
from receiver.proxy.health import wait_until_healthy

YEARS = 10 * 365 * 24 * 3600.0
GUARD = 60
REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def jumping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forwards, and further back, with every look."""
    jumps = itertools.cycle((YEARS, -YEARS, 2 * YEARS, -2 * YEARS))
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + next(jumps))
    yield


def live(ledger: Ledger) -> Release:
    release = ledger.open_release(Change.DEPLOY, "alice", builds=True)
    ledger.paths.release(release.number).slug.mkdir(parents=True)
    ledger.commit(release)
    return ledger.finish(release, Status.LIVE)


def test_releases_are_in_the_order_of_their_numbers(ledger: Ledger) -> None:
    made = [live(ledger) for _ in range(8)]
    created = [release.created for release in made]
    assert created != sorted(created), "the clock did jump"
    assert [release.number for release in ledger.releases()] == [8, 7, 6, 5, 4, 3, 2, 1]
    previous = ledger.previous_good()
    assert previous is not None and previous.number == 7
    assert ledger.kept() == {4, 5, 6, 7, 8}
    assert {out.age(release.created)[:1] for release in made} <= set("0123456789jn"), "no age is negative"


def test_who_waits_for_a_turn_waits_as_long_as_was_said(ledger: Ledger) -> None:
    with queued(ledger, "alice", push=False, say=lambda line: None):
        began = time.monotonic()
        with pytest.raises(Busy), queued(ledger, "bob", push=False, say=lambda line: None, wait=0.3):
            pass
        assert 0.3 <= time.monotonic() - began < GUARD
    with queued(ledger, "bob", push=False, say=lambda line: None, wait=0.3):
        pass


def test_a_healthcheck_has_the_time_that_was_said(ledger: Ledger) -> None:
    check = Check(CheckKind.HTTP, timeout=1)
    process = ProcessType(TypeName("web"), "run", Listen.SOCKET, check)
    release = Release(AppName("blog"), 1, Change.DEPLOY, Status.STARTING, "alice", 0.0, processes=(process,))
    began = time.monotonic()
    with pytest.raises(Unhealthy):
        wait_until_healthy(
            release, process, 1, ledger.paths, crashed=lambda: None, command=lambda: 0, ready=lambda: 1,
            say=lambda line: None, uid=os.getuid(),
        )  # fmt: skip
    assert 0.9 <= time.monotonic() - began < GUARD


def test_who_follows_a_release_follows_it_to_its_end(ledger: Ledger) -> None:
    release = ledger.open_release(Change.DEPLOY, "alice", builds=True)
    alive = ledger.paths.release(1).alive.open("r+")
    fcntl.flock(alive, fcntl.LOCK_EX)

    def work() -> None:
        time.sleep(0.5)
        ledger.commit(release)
        ledger.finish(release, Status.LIVE)
        alive.close()

    worker = threading.Thread(target=work)
    worker.start()
    out_fd = os.open(os.devnull, os.O_WRONLY)
    try:
        assert follow(ledger, 1, out_fd).status is Status.LIVE
    finally:
        os.close(out_fd)
        worker.join()


def test_no_limit_of_time_is_counted_by_the_clock() -> None:
    """What is added to or compared with the clock is a note of when; a deadline made of it would jump along."""
    deadline = re.compile(r"(deadline|limit|until|patience)\w*\s*=\s*time\.time\(\)|time\.time\(\)\s*\+\s*[A-Za-z0-9]")
    found = [
        f"{path.relative_to(REPO)}: {line.strip()}"
        for path in sorted((REPO / "receiver").rglob("*.py"))
        for line in path.read_text().splitlines()
        if deadline.search(line)
    ]
    assert found == []
