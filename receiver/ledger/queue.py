"""Who may change an app next: one at a time. Of several waiting pushes the newest wins.

`queue.lock` is an flock, so it ends with its holder and cannot go stale; the text in it is only a note for those who
wait. A waiting push holds a ticket (tickets.py) in the file `queue`, which shows whether a newer push is waiting.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import NoReturn

from receiver.errors import Busy, Cancelled, Failure
from receiver.ledger.ledger import Ledger
from receiver.ledger.tickets import drawn
from receiver.system import disk

_TICK = 0.05
# Seconds that a release's worker may need until it has begun.
_STARTING = 10.0


class Superseded(Cancelled):
    """A newer push of the same app came while this one waited. Nothing was received."""

    exit_code = 1


@dataclass(frozen=True)
class Turn:
    """The right to change the app, valid inside the block of `queued`.

    A program that inherits `fd` holds the turn too: so a push whose gateway was killed keeps its turn until git
    and its hooks have ended.
    """

    fd: int


@contextmanager
def queued(
    ledger: Ledger,
    who: str,
    *,
    push: bool,
    say: Callable[[str], None],
    client: int | None = None,
    wait: float | None = None,
    mends: bool = False,
) -> Iterator[Turn]:
    """Wait for the app's turn and hold it for the block; no worker is changing the app when the block begins.

    `say` is called once with who holds the app since when. A waiting `push` raises Superseded as soon as a newer push
    waits. `client` is a descriptor that reads end of file when the client has gone (raises Cancelled). After `wait`
    seconds (None: no limit) it raises Busy. So it does if the app is locked (`apps:lock`), unless the caller only
    `mends`.
    """
    paths = ledger.paths
    limit = None if wait is None else time.monotonic() + wait
    lock = disk.open_lock(paths.queue_lock)
    try:
        with drawn(paths.queue, who) if push else nullcontext() as mine:
            newer = mine.newer if mine else lambda: None
            told = False
            while not _taken(lock):
                if not told:
                    say(f"Waiting for {_holder(ledger, lock)}.")
                    told = True
                _wait(ledger, limit, client, newer)
            if (name := newer()) is not None:
                raise _superseded(name)
            note = json.dumps({"by": who, "since": time.time()}).encode()
            os.ftruncate(lock, 0)
            os.pwrite(lock, note, 0)
            while not _is_free(ledger):
                # The gateway of that deploy is gone, but its worker still runs.
                if not told:
                    say(f"Waiting for {_unfinished(ledger) or 'a deploy that is still running'}.")
                    told = True
                _wait(ledger, limit, client, newer)
        if not mends:
            refuse_locked(ledger)
        yield Turn(lock)
    finally:
        os.close(lock)


def refuse_locked(ledger: Ledger) -> None:
    """Raise Busy if `apps:lock` holds the app. Everything that changes an app calls this (`queued` does)."""
    state = ledger.state()
    if state.locked:
        raise Busy(
            f"{state.app} is locked: {state.locked}",
            holds="Nothing was changed.",
            hint=f"Unlock it: shipit apps:unlock {state.app}",
        )


def _wait(ledger: Ledger, limit: float | None, client: int | None, newer: Callable[[], str | None]) -> None:
    if (name := newer()) is not None:
        raise _superseded(name)
    if limit is not None and time.monotonic() > limit:
        raise Busy(
            f"{ledger.app} is still being changed: {_unfinished(ledger) or 'somebody holds its turn'}.",
            hint=f"Wait, or stop it: shipit cancel {ledger.app}",
        )
    if client is None:
        time.sleep(_TICK)
        return
    poll = select.poll()
    poll.register(client, 0)
    if poll.poll(_TICK * 1000):
        raise Cancelled("The client went away while it waited; nothing was changed.")


def _superseded(name: str) -> NoReturn:
    raise Superseded(f"Superseded by a newer push ({name}).", hint="Nothing was received. Yours can be pushed again.")


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(ledger: Ledger) -> bool:
    """Whether no worker holds the app's lock. None can take it later: only the holder of the turn starts a worker."""
    handle = disk.open_lock(ledger.paths.app_lock)
    try:
        return _taken(handle)
    finally:
        os.close(handle)


def _holder(ledger: Ledger, lock: int) -> str:
    """`v8 by alice, since 12:03:11`, or who has the turn if no release is open yet."""
    if release := _unfinished(ledger):
        return release
    try:
        note = json.loads(os.pread(lock, 4096, 0))
        return f"{note['by']}, who has {ledger.app} since {_clock(note['since'])}"
    except (ValueError, KeyError, TypeError, OverflowError):
        return f"whoever has {ledger.app}"


def _unfinished(ledger: Ledger) -> str:
    """The release that is being made now, as `v8 by alice, since 12:03:11`; "" if none is."""
    number = max([0, *ledger.numbers()])
    try:
        release = ledger.release(number)
    except Failure:
        # The release is being opened at this moment, or is damaged: a waiting user need not know.
        return ""
    made = ledger.worker_lives(number) or time.time() - release.created < _STARTING
    return (
        f"{release.name} by {release.by}, since {_clock(release.created)}" if made and not release.status.final else ""
    )


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))
