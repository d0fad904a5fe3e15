"""A command of an app that nobody watches: what it prints is bounded, and what is said of its end is true."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from receiver.errors import HostFault
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Release
from receiver.names import AppName
from receiver.paths import Layout
from receiver.root.client import Agent
from receiver.root.oneoff import MOST, run_unwatched

BLOG = AppName("blog")


class Runs(Agent):
    """An agent in whose place a command prints `text`, and ends with 3 or when it is hung up on."""

    def __init__(self, ledger: Ledger, text: bytes, *, ends: bool = True, gone: bool = False) -> None:
        self.ledger, self.text, self.ends, self.gone = ledger, text, ends, gone
        self.line, self.hung_up = "", threading.Event()

    def run(self, app: AppName, release: int, run: str, fds: Sequence[int], *, tty: bool) -> int:
        self.line = json.loads((self.ledger.paths.runs / f"{run}.json").read_bytes())["command"]
        rest = memoryview(self.text)
        while rest:
            rest = rest[os.write(fds[1], rest) :]
        if self.gone or (not self.ends and self.hung_up.wait(30)):
            raise HostFault("The agent went away before it had answered.")
        return 3

    def hang_up(self) -> None:
        self.hung_up.set()


@pytest.fixture
def release(tmp_path: Path) -> Release:
    ledger = Ledger(Layout(tmp_path).app(BLOG))
    ledger.paths.releases.mkdir(parents=True)
    return ledger.open_release(Change.DEPLOY, "alice", builds=True)


def run(agent: Runs, release: Release, seconds: float = 30) -> tuple[int, list[str]]:
    return run_unwatched(agent, agent.ledger.paths, release, "./it", stdin=0, seconds=seconds, what="It")


def test_of_what_it_prints_only_so_much_is_kept_and_it_does_not_wait_for_a_reader(
    tmp_path: Path, release: Release
) -> None:
    ledger = Ledger(Layout(tmp_path).app(BLOG))
    agent = Runs(ledger, b"one\n" + b"x" * 2**21)
    code, lines = run(agent, release)
    assert (code, lines[0], len(lines[1])) == (3, "one", MOST - 4)
    assert agent.line == "./it" and not list(ledger.paths.runs.iterdir()) and not agent.hung_up.is_set()


def test_only_one_that_took_too_long_is_said_to_have_taken_too_long(tmp_path: Path, release: Release) -> None:
    ledger = Ledger(Layout(tmp_path).app(BLOG))
    with pytest.raises(HostFault, match="It did not end within 0 s"):
        run(Runs(ledger, b"", ends=False), release, 0.05)
    with pytest.raises(HostFault, match="The agent went away"):
        run(Runs(ledger, b"", gone=True), release)
