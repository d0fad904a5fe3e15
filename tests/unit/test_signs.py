"""A process that lives, and of which no check will pass, shows it: nobody waits for the check's timeout."""

from __future__ import annotations

import pytest

from receiver.story import signs
from receiver.story.signs import Signs, died

READ_ONLY = "OSError: [Errno 30] Read-only file system: 'data'"


class Process:
    """One that prints what the test says, looked at as often as the test asks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.printed: list[str] = []
        self.workers: list[set[int]] = []
        self.now = 0.0
        monkeypatch.setattr(signs.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(signs.family, "below", lambda pid: self.workers.pop(0) if self.workers else set())
        self.signs = Signs(lambda: self.printed[-20:])

    def told(self, *printed: str, failed: bool = False, after: float = 2.0) -> str | None:
        self.printed += printed
        self.now += after
        return self.signs.told(7, failed)


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    return Process(monkeypatch)


def test_workers_that_all_end_again_and_again_end_the_wait(process: Process) -> None:
    process.workers = [{1, 2}, {3, 4}, {5, 6}, {7, 8}]
    assert not process.told("Booting")
    assert not process.told(*(f"Worker (pid:{pid}) exited with code 1." for pid in (1, 2)))
    assert not process.told(*(f"Worker (pid:{pid}) exited with code 1." for pid in (3, 4)))
    dead = process.told(*(f"Worker (pid:{pid}) exited with code 1." for pid in (5, 6, 7, 8)))
    assert dead == "its workers end and are started again and again, 6 of them so far"


def test_one_worker_that_ends_among_many_is_no_loop(process: Process) -> None:
    process.workers = [{1, 2, 3, 4}, {1, 2, 3, 5}, {1, 2, 3, 6}, {1, 2, 3, 7}, {1, 2, 3, 8}]
    assert not any(process.told(f"Worker (pid:{pid}) was sent SIGKILL!") for pid in (4, 5, 6, 7, 8))


def test_programs_that_a_start_runs_one_after_the_other_are_no_loop(process: Process) -> None:
    process.workers = [{pid} for pid in range(40)]
    assert not any(process.told(f"Migrating {pid}") for pid in range(40))


def test_an_app_that_answers_and_prints_each_time_that_it_cannot_write_ends_the_wait(process: Process) -> None:
    assert not process.told(READ_ONLY, failed=True), "that may be of the start before"
    assert not process.told(failed=True), "and no more of it was printed"
    assert not process.told(READ_ONLY, failed=True)
    assert not process.told(READ_ONLY, failed=True)
    told = process.told(READ_ONLY, failed=True)
    assert told == "it answers, and prints that it lacks what only another start can give it"


def test_a_warning_at_a_start_that_takes_its_time_does_not(process: Process) -> None:
    """It answers 503 until its migration has ended, and has warned once that a cache cannot be written."""
    assert not any(process.told(*lines, failed=True) for lines in ([], [READ_ONLY], *([[]] * 20)))


def test_workers_that_have_had_their_number_of_requests_are_well(process: Process) -> None:
    process.workers = [{pid} for pid in range(40)]
    ended = ("Autorestarting worker after current request.", "Worker exiting (pid: %d)")
    assert not any(process.told(ended[0], ended[1] % pid, failed=True) for pid in range(40))


def test_a_warning_of_an_app_that_has_yet_to_answer_does_not(process: Process) -> None:
    assert not any(process.told(READ_ONLY) for _ in range(5))


def test_of_lines_that_have_gone_from_the_last_ones_only_the_new_count(process: Process) -> None:
    assert not process.told(*(f"line {at}" for at in range(30)), READ_ONLY, failed=True)
    assert not process.told(*(f"more {at}" for at in range(5)), failed=True)
    again = [process.told(*(f"{n}: {at}" for at in range(25)), READ_ONLY, failed=True) for n in range(3)]
    assert not any(again[:2]) and again[2]


def test_nobody_looks_more_often_than_is_worth_it(process: Process) -> None:
    assert not any(process.told(READ_ONLY, failed=True, after=0.01) for _ in range(100))


def test_the_words_of_each_server_are_known() -> None:
    assert died([
        "[2026-11-26 11:46:13 +0000] [29004] [WARNING] Worker (pid:1) was sent SIGSEGV!",
        "[2026-11-26 11:46:13 +0000] [29004] [ERROR] Worker (pid:2) exited with code 1.",
        "[2026-11-26 11:46:13 +0000] [3] [INFO] Worker exiting (pid: 3)",
        "[2021-11-26 11:46:13 +0000] [9] [WARNING] Worker with pid 4 was terminated due to signal 9",
        "INFO:     Child process [5] died", "INFO:     Waiting for child process [6]",
    ]) == {"1", "2", "3", "4", "5"}  # fmt: skip
