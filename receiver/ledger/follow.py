"""Relay the log of a release to its readers until it has a verdict, without ever blocking on them.

git's hooks do not notice when a client goes away: nobody empties the pipe any more, and a hook that goes on writing
blocks for ever, with the app's lock held (threats E6, E9). So writes never block; the log file itself is the buffer.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from receiver.errors import HostFault
from receiver.ledger.ledger import Ledger
from receiver.model import Change, Release, Status
from receiver.system import disk
from receiver.system.audit import where

# Seconds in which a reader may take no byte at all; then it does not get the rest.
PATIENCE = 5.0
# Seconds in which the worker may write its last lines after it has recorded a failure.
LAST_WORDS = 10.0
# Seconds that a worker may need to begin before it counts as dead.
GRACE = 20.0
# Seconds between two looks; one look takes 10 microseconds.
TICK = 0.01


def follow(
    ledger: Ledger, number: int, out: int, *, worker: int | None = None, holds: Callable[[], str] = lambda: ""
) -> Release:
    """Copy the log of release `number` to the file descriptor `out` until the release is live, failed or cancelled.

    `worker` is a descriptor that reads end of file when the worker ends (story/worker.py), so that is noticed at once;
    without it the lock `vN/alive` is tried. Raises HostFault if the worker died before its verdict.
    """
    paths = ledger.paths.release(number)
    with nonblocking(out), paths.log.open("rb", buffering=0) as log:
        relay = Relay(log.fileno(), out)
        seen = Seen(ledger, number, worker)
        decided = 0.0
        while True:
            release, gone = seen.look()
            relay.pump()
            if release.status is Status.LIVE or (release.status.final and gone):
                break
            if gone and ledger.current_number() == number:
                # The worker was killed after the commit: the release is live, and only the old one was not yet retired.
                release = replace(release, status=Status.LIVE)
                break
            if gone:
                relay.finish()
                raise died(ledger, release, holds())
            if release.status.final:
                decided = decided or time.monotonic()
                if time.monotonic() - decided > LAST_WORDS:
                    break
            wait(out if relay.pending() else None, worker)
        relay.finish()
    return release


def died(ledger: Ledger, release: Release, holds: str) -> HostFault:
    """The failure to report if the worker ended without a verdict."""
    again = "Push again." if release.change is Change.DEPLOY else "Give the same command again."
    if disk.is_full(ledger.paths.releases):
        # The disk was too full even to record the failure.
        return HostFault(
            f"The disk of the server is full; {release.name} was not made live.",
            holds=holds,
            hint=f"Make room on the server (look with: shipit doctor). {again}",
        )
    return HostFault(
        f"The worker that made {release.name} live died half way.",
        holds=holds,
        hint=f"{again} The server's administrator finds the cause with: {where()}",
    )


class Seen:
    """The release's record, and whether its worker is gone; read again only when these may have changed."""

    def __init__(self, ledger: Ledger, number: int, worker: int | None) -> None:
        self._ledger = ledger
        self._number = number
        self._worker = worker
        self._stamp = (0, 0)
        self._release: Release | None = None
        self._began = time.monotonic()
        self._lived = False

    def look(self) -> tuple[Release, bool]:
        release = self._read()
        if not self._gone():
            return release, False
        # The worker may have recorded its verdict between the first look and its end.
        return self._read(), True

    def _read(self) -> Release:
        stat = self._ledger.paths.release(self._number).record.stat()
        stamp = (stat.st_ino, stat.st_mtime_ns)
        if self._release is None or stamp != self._stamp:
            self._release = self._ledger.release(self._number)
            self._stamp = stamp
        return self._release

    def _gone(self) -> bool:
        if self._worker is not None:
            return bool(select.select([self._worker], [], [], 0)[0])
        if self._ledger.worker_lives(self._number):
            self._lived = True
            return False
        return self._lived or time.monotonic() - self._began > GRACE or self._begun_long_ago()

    def _begun_long_ago(self) -> bool:
        release = self._release
        return release is not None and (release.status.final or time.time() - release.created > GRACE)


class Relay:
    """Copies a growing file to a file descriptor that may not take anything, or may be closed."""

    def __init__(self, log: int, out: int) -> None:
        self._log = log
        self._out = out
        self._at = 0
        self._deaf = False
        self._progress = time.monotonic()

    def pending(self) -> bool:
        return not self._deaf and self._at < os.fstat(self._log).st_size

    def pump(self) -> None:
        """Copy what can be copied now."""
        while not self._deaf and (chunk := os.pread(self._log, 65536, self._at)):
            try:
                written = os.write(self._out, chunk)
            except BlockingIOError:
                return
            except OSError:
                self._deaf = True
                return
            self._at += written
            self._progress = time.monotonic()
        self._progress = time.monotonic()

    def finish(self) -> None:
        """Copy the rest, as long as the reader takes some of it every PATIENCE seconds."""
        self.pump()
        while self.pending() and (left := self._progress + PATIENCE - time.monotonic()) > 0:
            writable = select.poll()
            writable.register(self._out, select.POLLOUT)
            writable.poll(left * 1000)
            self.pump()


def wait(out: int | None, worker: int | None) -> None:
    """Return when `out` takes bytes again, when `worker` ends, or after a tick."""
    poll = select.poll()
    if worker is not None:
        poll.register(worker, select.POLLIN)
    if out is not None:
        poll.register(out, select.POLLOUT)
    for _, event in poll.poll(TICK * 1000):
        if event & (select.POLLERR | select.POLLNVAL):
            # A reader that hung up is always "ready": do not spin.
            time.sleep(0.05)


@contextmanager
def nonblocking(fd: int) -> Iterator[None]:
    """Writes to `fd` do not block inside the block. Others who have the same file open share this flag."""
    before = os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        yield
    finally:
        os.set_blocking(fd, before)
