"""A terminal for `shipit run`: a pty for the job, relayed to and from the terminal of the ssh session.

The session's terminal controls the session's processes already; it cannot control a job's as well (tty_ioctl(4)).
"""

from __future__ import annotations

import fcntl
import os
import select
import termios
import tty
from contextlib import suppress

CHUNK = 65536


class Terminal:
    """A new pty with the size of the outer terminal, whose descriptors are `source` (keys) and `sink` (screen)."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._master, self._slave = os.openpty()
        self.name = os.ttyname(self._slave)
        self._size = b""
        self._saved = None
        with suppress(termios.error):
            self._saved = termios.tcgetattr(source)
            termios.tcsetattr(self._slave, termios.TCSANOW, self._saved)
            tty.setraw(source, termios.TCSANOW)
        self._resize()

    def pass_on(self, ended: int, seconds: float) -> None:
        """Copy data in both directions; returns after `seconds`, or at once when `ended` is readable."""
        watched = [self._master, ended] + ([self._source] if self._source >= 0 else [])
        ready = select.select(watched, [], [], seconds)[0]
        if self._source in ready:
            keys = _read(self._source)
            if keys:
                os.write(self._master, keys)
            else:
                os.write(self._master, b"\x04")
                self._source = -1
        if self._master in ready:
            _write_all(self._sink, _read(self._master))
        self._resize()

    def restore(self) -> None:
        """Show the remaining output and restore the outer terminal's settings."""
        while select.select([self._master], [], [], 0)[0]:
            rest = _read(self._master)
            if not rest:
                break
            _write_all(self._sink, rest)
        if self._saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._sink, termios.TCSADRAIN, self._saved)

    def _resize(self) -> None:
        """Copy the outer terminal's size: its SIGWINCH reaches only the other session."""
        with suppress(OSError):
            size = fcntl.ioctl(self._sink, termios.TIOCGWINSZ, b"\0" * 8)
            if size != self._size:
                fcntl.ioctl(self._slave, termios.TIOCSWINSZ, size)
                self._size = size


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, CHUNK)
    except OSError:
        return b""


def _write_all(fd: int, data: bytes) -> None:
    with suppress(OSError):
        while data:
            data = data[os.write(fd, data) :]
