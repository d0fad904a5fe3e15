"""A terminal for `shipit run`: a pty of the job's own, passed on to and from the terminal of the ssh session.

The session's terminal already controls the session's processes and cannot be a job's as well (tty_ioctl(4)).
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
    """A new pty in the size of the outer terminal, whose descriptors are `source` (keys) and `sink` (screen)."""

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
        """Move what has come in either direction; returns after `seconds`, or at once when `ended` is readable."""
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
        """Show what is left to show and give the outer terminal its settings back."""
        while select.select([self._master], [], [], 0)[0]:
            rest = _read(self._master)
            if not rest:
                break
            _write_all(self._sink, rest)
        if self._saved is not None:
            with suppress(termios.error):
                termios.tcsetattr(self._sink, termios.TCSADRAIN, self._saved)

    def _resize(self) -> None:
        """The outer terminal's SIGWINCH reaches another session only, so its size is asked for."""
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
