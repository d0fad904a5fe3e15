"""When what others send has to be here: the moment at which a transfer is over, however steadily bytes come.

The timeout of a socket is for one recv(2): who sends a byte in every minute never runs into it.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import contextmanager


class Ends:
    """`seconds` from now at the latest; earlier after `silence` seconds without a byte."""

    def __init__(self, seconds: float, silence: float) -> None:
        self._seconds, self._silence = seconds, silence
        self._at = time.monotonic() + seconds

    def wait(self) -> float:
        """How long the next byte may take (s); raises TimeoutError when it is over."""
        left = self._at - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"it took longer than {shown(self._seconds)}")
        return min(left, self._silence)

    @contextmanager
    def told(self) -> Iterator[None]:
        """A timeout in the block says so when it is that of the whole transfer."""
        try:
            yield
        except TimeoutError:
            self.wait()
            raise

    def within(self, seconds: float) -> Ends:
        """For a part of it, which has `seconds` from now."""
        left = self._at - time.monotonic()
        return Ends(min(left, seconds), self._silence)


def shown(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds >= 120 else f"{seconds:.0f} s"


def why(error: Exception) -> str:
    """What went wrong, in a few words."""
    return getattr(error, "strerror", None) or str(error)[:200] or type(error).__name__


def arriving(fd: int, ends: Ends, size: int = 65536) -> Iterator[bytes]:
    """What comes from a descriptor until its end; raises TimeoutError."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while True:
        if not poll.poll(ends.wait() * 1000):
            ends.wait()
            raise TimeoutError("nothing came for too long")
        if not (part := os.read(fd, size)):
            return
        yield part
