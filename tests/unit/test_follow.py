"""Following a release: everything is shown, nothing ever blocks, and a dead worker is noticed (threats E6, E9)."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from receiver.errors import HostFault
from receiver.ledger import follow as module
from receiver.ledger.follow import follow
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Status
from receiver.names import AppName
from receiver.paths import Layout
from receiver.system import disk


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(Layout(tmp_path).app(AppName("blog")))
    made.paths.releases.mkdir(parents=True)
    made.create()
    made.open_release(Change.DEPLOY, "alice", builds=True)
    return made


class Worker:
    """Holds `alive` and the writing end of a pipe, as the worker does."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.paths = ledger.paths.release(1)
        self.there, self.here = os.pipe()
        self.alive = self.paths.alive.open("r+")
        fcntl.flock(self.alive, fcntl.LOCK_EX)

    def say(self, text: str) -> None:
        with self.paths.log.open("a") as log:
            log.write(text)

    def finish(self, status: Status) -> None:
        if status is Status.LIVE:
            self.ledger.commit(self.ledger.release(1))
        self.ledger.finish(self.ledger.release(1), status)

    def end(self) -> None:
        self.alive.close()
        if self.here >= 0:
            os.close(self.here)
            self.here = -1


@pytest.fixture
def worker(ledger: Ledger) -> Iterator[Worker]:
    made = Worker(ledger)
    yield made
    made.end()
    os.close(made.there)


def later(seconds: float, *steps: object) -> threading.Thread:
    def run() -> None:
        time.sleep(seconds)
        for step in steps:
            step()  # type: ignore[operator]

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_all_of_the_log_is_copied_until_the_release_is_live(ledger: Ledger, worker: Worker) -> None:
    reader, writer = os.pipe()
    worker.say("one\n")
    thread = later(0.2, lambda: worker.say("two\n"), lambda: worker.finish(Status.LIVE))
    assert follow(ledger, 1, writer, worker=worker.there).status is Status.LIVE
    thread.join()
    os.close(writer)
    assert os.read(reader, 100) == b"one\ntwo\n"


def test_a_verdict_is_seen_at_once(ledger: Ledger, worker: Worker) -> None:
    _, writer = os.pipe()
    given: list[float] = []
    thread = later(0.3, lambda: (worker.finish(Status.LIVE), given.append(time.monotonic())))
    follow(ledger, 1, writer, worker=worker.there)
    thread.join()
    assert time.monotonic() - given[0] < 0.1


def test_the_last_words_after_a_failure_are_waited_for(ledger: Ledger, worker: Worker) -> None:
    reader, writer = os.pipe()
    worker.finish(Status.FAILED)
    thread = later(0.3, lambda: worker.say("why\n"), worker.end)
    assert follow(ledger, 1, writer, worker=worker.there).status is Status.FAILED
    thread.join()
    assert os.read(reader, 100) == b"why\n"


def test_a_worker_that_ended_on_a_full_disk_is_told_as_such(
    ledger: Ledger, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "is_full", lambda path: path == ledger.paths.releases)
    _, writer = os.pipe()
    worker.end()
    with pytest.raises(HostFault, match="disk of the server is full; v1 was not made live") as told:
        follow(ledger, 1, writer, worker=worker.there)
    assert "Make room" in told.value.hint


@pytest.mark.parametrize("connected", [True, False])
def test_a_dead_worker_is_noticed(ledger: Ledger, worker: Worker, connected: bool) -> None:
    reader, writer = os.pipe()
    worker.say("so far\n")
    thread = later(0.3, worker.end)
    began = time.monotonic()
    with pytest.raises(HostFault, match="died half way") as told:
        there = worker.there if connected else None
        follow(ledger, 1, writer, worker=there, holds=lambda: "blog has no live release yet.")
    assert time.monotonic() - began < 3 and "no live release" in told.value.holds
    thread.join()
    assert os.read(reader, 100) == b"so far\n"


def test_a_worker_that_ends_right_after_its_verdict_is_not_dead(ledger: Ledger, worker: Worker) -> None:
    for _ in range(3):
        worker.finish(Status.LIVE)
        worker.end()
        assert follow(ledger, 1, os.open(os.devnull, os.O_WRONLY), worker=worker.there).status is Status.LIVE
        worker = Worker(ledger)


def test_a_reader_that_never_reads_costs_no_more_than_the_patience(
    ledger: Ledger, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    _, writer = os.pipe()
    worker.say("x" * 2**20)
    worker.finish(Status.LIVE)
    began = time.monotonic()
    follow(ledger, 1, writer, worker=worker.there)
    assert time.monotonic() - began < 3
    assert os.get_blocking(writer)


def test_a_slow_reader_gets_everything(ledger: Ledger, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 1.0)
    reader, writer = os.pipe()
    worker.say("x" * 2**20)
    worker.finish(Status.LIVE)
    got = []

    def read() -> None:
        while chunk := os.read(reader, 32768):
            got.append(len(chunk))
            time.sleep(0.05)

    thread = threading.Thread(target=read)
    thread.start()
    follow(ledger, 1, writer, worker=worker.there)
    os.close(writer)
    thread.join()
    assert sum(got) == 2**20


def test_a_reader_that_hung_up_does_not_end_the_watch(ledger: Ledger, worker: Worker) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    worker.say("x\n")
    thread = later(0.5, lambda: worker.finish(Status.LIVE))
    assert follow(ledger, 1, writer, worker=worker.there).status is Status.LIVE
    thread.join()


def test_a_finished_release_is_shown_at_once(ledger: Ledger, worker: Worker) -> None:
    worker.say("x\n")
    worker.finish(Status.FAILED)
    worker.end()
    reader, writer = os.pipe()
    began = time.monotonic()
    assert follow(ledger, 1, writer).status is Status.FAILED
    assert time.monotonic() - began < 1 and os.read(reader, 10) == b"x\n"


def test_watching_costs_no_processor_time(ledger: Ledger, worker: Worker) -> None:
    _, writer = os.pipe()
    thread = later(2.0, lambda: worker.finish(Status.LIVE))
    before = time.thread_time()
    follow(ledger, 1, writer, worker=worker.there)
    assert time.thread_time() - before < 0.2
    thread.join()
