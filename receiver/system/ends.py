"""Time limits for data from others: when a transfer must be over, however steadily bytes come.

The timeout of a socket is for one recv(2): a sender of one byte a minute never exceeds it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Ends:
    """The transfer ends `seconds` from now at the latest, or after `silence` seconds without a byte."""

    def __init__(self, seconds: float, silence: float) -> None:
        self._seconds, self._silence = seconds, silence
        self._at = time.monotonic() + seconds

    def wait(self) -> float:
        """How long the next byte may take (s); raises TimeoutError when the time is over."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {shown(self._seconds)}")
        return min(left, self._silence)

    @contextmanager
    def told(self) -> Iterator[None]:
        """If a timeout in the block is that of the whole transfer, its message says so."""
        try:
            yield
        except TimeoutError:
            self.wait()
            raise

    def within(self, seconds: float) -> Ends:
        """The limits for a part of it, which may take `seconds` from now."""
        left = self._at - time.monotonic()
        return Ends(min(left, seconds), self._silence)


def shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"


def why(error: Exception) -> str:
    """The cause of the error, in a few words."""
    return getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__


def arriving(fd: int, ends: Ends, size: int = 65536) -> Iterator[bytes]:
    """The data from a descriptor until its end; raises TimeoutError."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if not poll.poll(ends.wait() * 1000):
            ends.wait()
            raise TimeoutError("nothing came for too long")
        if not (part := os.read(fd, size)):
            return
        yield part
