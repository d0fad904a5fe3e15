"""The line of the builds: so many at once, first come, first served, and who died is not waited for."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from receiver.ledger.tickets import drawn
from receiver.settings import Settings
from receiver.story.build_queue import turn_to_build
from receiver.story.context import AppContext


def host(path: Path, said: list[str], builds: int = 2) -> AppContext:
    @contextmanager
    def timed(name: str) -> Any:
        yield

    say = SimpleNamespace(line=said.append, timed=timed)
    return cast(
        AppContext, SimpleNamespace(settings=Settings(builds=builds), layout=SimpleNamespace(builds=path), say=say)
    )


RELEASE: Any = SimpleNamespace(app="blog", name="v1")


def test_the_third_of_two_waits_and_is_told_its_place_until_the_first_has_ended(tmp_path: Path) -> None:
    said: list[str] = []
    began = threading.Event()

    def third() -> None:
        with turn_to_build(host(tmp_path / "builds", said), RELEASE, wanted=True):
            began.set()

    with ExitStack() as first, turn_to_build(host(tmp_path / "builds", []), RELEASE, wanted=True):
        first.enter_context(drawn(tmp_path / "builds", "a v1"))
        waiting = threading.Thread(target=third)
        waiting.start()
        assert not began.wait(0.5)
        assert said == ["Waiting for builds of other apps: place 1 in the line, 2 run at once"]
        first.close()
        assert began.wait(10)
        waiting.join()


@pytest.mark.parametrize(("builds", "wanted"), [(2, False), (0, True)])
def test_who_has_nothing_to_build_does_not_stand_in_line(tmp_path: Path, builds: int, wanted: bool) -> None:
    said: list[str] = []
    began = threading.Event()

    def build() -> None:
        with turn_to_build(host(tmp_path / "builds", said, builds), RELEASE, wanted=wanted):
            began.set()

    with drawn(tmp_path / "builds", "a v1"), drawn(tmp_path / "builds", "b v1"):
        threading.Thread(target=build, daemon=True).start()
        assert began.wait(10) and said == []


def test_a_killed_one_has_left_the_line(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with drawn(tmp_path / "builds", "a v1"):
            os.write(writer, b"x")
            signal.pause()
    os.read(reader, 1)
    with drawn(tmp_path / "builds", "b v1") as mine:
        assert mine.before() == 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert mine.before() == 0
    os.close(reader)
    os.close(writer)
