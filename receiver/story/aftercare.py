"""After the verdict: the new release is watched for a short while, because a process that runs may still crash soon.

Nobody waits for this. It reads the notes that the launcher leaves beside the sockets, which costs nothing; it asks the
engine only about a process that has ended.
"""

from __future__ import annotations

import pwd
import time
from collections.abc import Iterator
from contextlib import suppress

from receiver.engines import all as engines
from receiver.engines.base import ProcessStatus, keeps_ending
from receiver.errors import Failure
from receiver.model import Release
from receiver.names import TypeName
from receiver.paths import app_user
from receiver.story import verdict
from receiver.story.context import AppContext
from receiver.system import disk

# How long the release is watched, and how often it is looked at (s).
WATCHED, EVERY = 30.0, 1.0
MAX_NOTE = 64  # bytes
LAST_LINES = 30


def watch_on(context: AppContext, release: Release) -> None:
    """Report each process of the live release that ends again and again, in the release's log and as an event."""
    if context.keeps_stopped(release) or release.took_over:
        return
    told: set[tuple[TypeName, int]] = set()
    deadline = time.monotonic() + WATCHED
    while time.monotonic() < deadline:
        time.sleep(EVERY)
        # If the app is destroyed meanwhile, that is no fault of the release.
        with suppress(Failure, KeyError, OSError):
            if context.ledger.current_number() != release.number:
                return
            if {*_ended(context, release)} - told:
                for process in context.agent.processes(release.app):
                    which = (process.process, process.index)
                    if process.release == release.runs_as and which not in told and keeps_ending(process, time.time()):
                        told.add(which)
                        _tell(context, release, process)


def trouble(engine: engines.Engines, release: Release, process: ProcessStatus) -> list[str]:
    """Why a process ends again and again: its last lines, and advice if we know any."""
    from receiver.story.advice import advice

    lines = engine.last_lines(release, process.process, process.index, LAST_LINES)
    said = [line for line in lines if line.strip() and not line.startswith("shipit: ")]
    told = f"{process.process}.{process.index} ended {process.restarts} times and is started again and again"
    hint = advice(release.app, said)
    return [told, *said[-1:], *([hint] if hint else [])]


def _tell(context: AppContext, release: Release, process: ProcessStatus) -> None:
    first, *rest = trouble(engines.here(context.layout), release, process)
    context.say.warn(f"{first}.")
    for line in rest:
        context.say.foreign(line)
    verdict.crashed(context.ledger, release.number, process.process, process.index)


def _ended(context: AppContext, release: Release) -> Iterator[tuple[TypeName, int]]:
    """The processes that were started again, by the launcher's notes (inside/launch.py). The app can write there too;
    the worst that does is that the engine is asked for nothing."""
    uid = pwd.getpwnam(app_user(release.app)).pw_uid
    paths = context.paths.release(release.runs_as)
    for process, index in release.running():
        with suppress(OSError, ValueError):
            note = disk.read_foreign(
                context.layout.run.joinpath(*paths.starts(process.type, index)), uid=uid, limit=MAX_NOTE
            )
            if int(note.split()[0]) > 1:
                yield process.type, index
