"""Measures an app's data, keeps the result for callers that cannot wait for it, and tells when the quota is nearly
used.

Apps that have a quota are measured after each release, every hour where the machine has timers
(templates/systemd/shipit-storage.timer), and by `storage:list`, `storage:quota` and `doctor`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from receiver import settings
from receiver.errors import Failure
from receiver.ledger.ledger import FILE_MODE, Ledger, apps
from receiver.ops import quota
from receiver.ops.quota import Level, Measured
from receiver.paths import Layout
from receiver.records import decode, encode
from receiver.root.client import Agent
from receiver.settings import Settings
from receiver.story import verdict
from receiver.system import disk


def last(ledger: Ledger) -> Measured | None:
    """The result of the last measurement."""
    try:
        return decode(Measured, ledger.paths.measured.read_bytes(), ledger.paths.measured.name)
    except (FileNotFoundError, Failure):
        return None


def measure(ledger: Ledger, agent: Agent, most: int) -> Measured:
    """Measure, and keep the result; `most` is the app's quota in MiB. Slow if there are many files; raises
    HostFault."""
    used = agent.measure(ledger.app)
    with _note(ledger) as before:
        # If the data has shrunk, people are told again when it grows again.
        return _keep(ledger, used, min(before, quota.level(used, most), key=lambda level: level.rank))


def look(ledger: Ledger, agent: Agent, known: Settings) -> None:
    """Measure, and send an event if the data has reached a higher level than people were told of.

    Of two callers at once, one tells. That people were told is written down afterwards: who is killed in between has
    them told twice, and not never.
    """
    most = quota.of(ledger.state(), known)
    if not most:
        return
    with disk.locked(ledger.paths.measured_lock.with_suffix(".telling"), wait=True):
        used = agent.measure(ledger.app)
        level = quota.level(used, most)
        with _note(ledger) as before:
            _keep(ledger, used, min(before, level, key=lambda level: level.rank))
        if level.rank > before.rank:
            verdict.storage(ledger, quota.sentence(ledger.app, used, most))
            with _note(ledger):
                _keep(ledger, used, level)


def warning(ledger: Ledger, known: Settings) -> str:
    """The warning that a push prints, from the last measurement; "" while there is room."""
    most = quota.of(ledger.state(), known)
    found = last(ledger) if most else None
    if found is None or quota.level(found.used, most) is Level.WELL:
        return ""
    told = quota.sentence(ledger.app, found.used, most)
    return f"{told[0].upper()}{told[1:]}\n{quota.hint(ledger.app)}"


def main() -> int:
    """Measure every app that has a quota, for the timer."""
    layout = Layout()
    for app in apps(layout):
        # An app that is damaged, that cannot be measured or that is destroyed meanwhile must not keep the others from
        # being measured; doctor reports it.
        with suppress(Failure, OSError):
            ledger, known = Ledger(layout.app(app)), settings.load(layout.settings)
            if quota.of(ledger.state(), known):
                with Agent.connect(layout.agent_socket) as agent:
                    look(ledger, agent, known)
    return 0


@contextmanager
def _note(ledger: Ledger) -> Iterator[Level]:
    """The level that people have been told of, under a lock."""
    with disk.locked(ledger.paths.measured_lock, wait=True):
        before = last(ledger)
        yield before.told if before else Level.WELL


def _keep(ledger: Ledger, used: int, told: Level) -> Measured:
    found = Measured(used, time.time(), told)
    disk.write_atomically(ledger.paths.measured, encode(found), FILE_MODE, lasts=disk.Lasts.CONTENT)
    return found
