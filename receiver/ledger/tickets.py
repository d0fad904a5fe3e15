"""A queue of processes: each holds a ticket, which is a lock on one byte of a file.

The kernel knows which tickets are still held: it drops the lock of a process that ends or is killed.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from receiver.system import disk

# The size of one ticket in the file: the name of its holder, padded.
_RECORD = 64
# struct flock of fcntl(2): type, whence, start, len, pid; `@` pads as the C compiler does.
_FLOCK = "@hhqqi4x"
_TO_THE_END = 0


class Ticket:
    """A place in the queue, valid inside the block of `drawn`."""

    def __init__(self, fd: int, number: int) -> None:
        self._fd, self._number = fd, number
        # The older tickets that may still be held; one that was given up never comes back.
        self._before = list(range(number))

    def newer(self) -> str | None:
        """If a newer ticket is still held, the name on the newest ticket; else None."""
        if not _locked(self._fd, self._number + 1, _TO_THE_END):
            return None
        last = max(self._number + 1, os.fstat(self._fd).st_size // _RECORD - 1)
        return os.pread(self._fd, _RECORD, last * _RECORD).decode(errors="replace").strip()

    def before(self) -> int:
        """How many older tickets are still held."""
        self._before = [number for number in self._before if _locked(self._fd, number, 1)]
        return len(self._before)


@contextmanager
def drawn(path: Path, who: str) -> Iterator[Ticket]:
    """Draw a ticket and hold it for the block."""
    fd = disk.open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not _locked(fd, 0, _TO_THE_END):
            os.ftruncate(fd, 0)
        mine = os.fstat(fd).st_size // _RECORD
        os.pwrite(fd, who.encode()[: _RECORD - 1].ljust(_RECORD), mine * _RECORD)
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, mine, 1, 0))
        fcntl.flock(fd, fcntl.LOCK_UN)
        yield Ticket(fd, mine)
    finally:
        os.close(fd)


def somebody_waits(path: Path) -> bool:
    """Whether any ticket of this queue is held."""
    fd = disk.open_lock(path)
    try:
        return _locked(fd, 0, _TO_THE_END)
    finally:
        os.close(fd)


def _locked(fd: int, start: int, length: int) -> bool:
    """Whether another process has a lock on one of these bytes."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked)
    return bool(struct.unpack(_FLOCK, answer)[0] != fcntl.F_UNLCK)
