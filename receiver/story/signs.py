"""Signs that a running process will never pass its healthcheck, so that a push need not wait for the timeout.

There are two. A server starts its workers again and again, and each ends at once. An app answers with errors, and prints
each time that it lacks what only another start can give it: a place to write, or a secret (story/beside.py).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from receiver.story import advice
from receiver.system import family

# A process that has begun just now says nothing, and to look costs a little (s).
FIRST_LOOK, LOOK_EVERY = 1.5, 1.0
# So often all workers have ended that are there at once, or an app has printed that it lacks something.
ROUNDS = 3
# gunicorn ends a worker that has had its `max_requests`, and it is well.
_RECYCLED = "Autorestarting worker"
# What servers print of a worker that has ended, with its pid: gunicorn (three versions of it), uvicorn.
_DIED = re.compile(
    r"Worker \(pid: ?(\d+)\) (?:exited|was )|Worker with pid (\d+) was terminated|Worker exiting \(pid: (\d+)\)|"
    r"Child process \[(\d+)\] died"
)


class Signs:
    """The signs of one process. `lines` returns the last lines that it printed, also those of an earlier start."""

    def __init__(self, lines: Callable[[], list[str]]) -> None:
        self._lines = lines
        self._look = time.monotonic() + FIRST_LOOK
        self._read: list[str] | None = None
        self._below, self._most, self._died, self._lacking = set[int](), 1, set[str](), 0

    def told(self, pid: int, failed: bool) -> str | None:
        """Why the process will never pass its check; None while it still may. `pid`: the process as its engine knows it.
        `failed`: the process itself answered the last check, with an error."""
        if (now := time.monotonic()) < self._look:
            return None
        self._look = now + LOOK_EVERY
        below = family.below(pid) if pid else set()
        changed, self._below = bool(self._below - below), below
        self._most = max(self._most, len(below))
        if not failed and not changed:
            return None
        new = self._new()
        if any(_RECYCLED in line for line in new):
            return None
        self._lacking += failed and advice.wants_another_start(new)
        if self._lacking >= ROUNDS:
            return "it answers, and prints that it lacks what only another start can give it"
        self._died |= died(new)
        if len(self._died) < ROUNDS * self._most:
            return None
        return f"its workers end and are started again and again, {len(self._died)} of them so far"

    def _new(self) -> list[str]:
        """What was printed since the last call. The first returns nothing: that may be of an earlier start."""
        lines, before = self._lines(), self._read
        self._read = lines
        if before is None:
            return []
        # Only so many of the last lines are there: the oldest of them may have gone meanwhile.
        gone = next(gone for gone in range(len(before) + 1) if before[gone:] == lines[: len(before) - gone])
        return lines[len(before) - gone :]


def died(lines: list[str]) -> set[str]:
    """The pids of the workers that have ended, as their server tells."""
    return {next(filter(None, found.groups())) for line in lines if (found := _DIED.search(line))}
