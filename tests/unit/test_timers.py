"""What the engine of systemd asks about runs by the clock, and what it makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_units import release

from receiver.engines.systemd import timers, units
from receiver.engines.systemd.engine import SystemdEngine
from receiver.model import Release
from receiver.names import AppName
from receiver.paths import Layout
from receiver.schedule import schedule
from receiver.system.run import Result

BLOG = AppName("blog")


def by_clock(number: int, *, overlap: bool = False) -> Release:
    """A release whose process types all run by the clock."""
    made = release()
    timed = tuple(replace(process, schedule=schedule("0 3 * * *", overlap=overlap)) for process in made.processes)
    return replace(made, number=number, processes=timed, formation=())


class Systemd:
    """Starts and stops all, and says that these units go on."""

    def __init__(self, going_on: dict[str, str]) -> None:
        self.going_on, self.connections = going_on, 0

    def talk(self, work: Callable[[Any], Any]) -> Any:
        self.connections += 1
        return work(self)

    def stop_units(self, names: Sequence[str]) -> None: ...

    def start_units(self, names: Sequence[str], *, until_done: Collection[str]) -> dict[str, str]:
        return {}

    def active(self, pattern: str, states: Collection[str] = ("active",)) -> list[str]:
        assert pattern == "shipit-blog-*-v*@t[0-9]*.service"
        return [name for name, state in self.going_on.items() if state in states]


def test_a_run_that_is_told_to_end_keeps_its_files_and_a_release_asks_systemd_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = Layout(tmp_path)
    layout.units.mkdir(parents=True)
    first, second = by_clock(8), by_clock(9)
    ends = units.timer_name(BLOG, first.processes[0].type, 8, "service")
    systemd = Systemd({ends: "deactivating"})
    monkeypatch.setattr("receiver.engines.systemd.bus.talk", systemd.talk)
    monkeypatch.setattr(timers, "systemctl", lambda *words, **_: Result(0, "", ""))
    engine = SystemdEngine(layout)
    engine.keep_time(BLOG, first, ())
    systemd.connections = 0
    engine.keep_time(BLOG, second, ())
    assert systemd.connections == 1, "however many files there are"
    there = {path.name for path in layout.units.iterdir() if path.is_file()}
    assert there == {ends, *units.timer_files(second, layout)}
    assert engine.under_way(BLOG) == {8}


def test_how_a_run_ended_is_told_where_systemd_knows_and_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def answered(*words: str, **_: object) -> Result:
        last = "Thu 2026-11-26 03:00:00 UTC" if words[-1].endswith(".timer") else ""
        ended = "exit-code" if words[-1].endswith("-v8@t1.service") else "success"
        told = f"LastTriggerUSec={last}\nResult={ended}\nExecMainStatus={3 if ended != 'success' else 0}\n"
        return Result(0, told if words[0] == "show" else "", "")

    monkeypatch.setattr(timers, "systemctl", answered)
    engine = SystemdEngine(Layout())
    assert {one.result for one in engine.timed(by_clock(8))} == {"exit-code (3)"}
    alike = engine.timed(by_clock(9, overlap=True))
    assert [(one.result, one.last[:3]) for one in alike] == [("", "Thu")] * len(alike) and alike
