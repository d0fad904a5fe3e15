"""Standard output and error of what runs for a long time: lines for the journal, and no reason to fail.

systemd gives a service a stream to the journal. When journald was stopped and started, nobody is at its other end, and
a line would end whoever prints it (EPIPE).
"""

from __future__ import annotations

import io
import os
import socket
import sys
from contextlib import suppress

JOURNAL = "/run/systemd/journal/stdout"
PRIORITY = 6  # info, as systemd gives it to what a service prints
PATIENCE = 1.0  # seconds for a journal that does not answer


class Stream(io.RawIOBase):
    """Writes to a descriptor; what nobody takes is lost. A stream to the journal is made anew once."""

    def __init__(self, fd: int, identifier: str) -> None:
        self._fd, self._identifier = fd, identifier

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: object, /) -> int:
        raw = bytes(memoryview(data))  # type: ignore[arg-type]
        try:
            os.write(self._fd, raw)
        except BrokenPipeError:
            with suppress(OSError):
                self._anew()
                os.write(self._fd, raw)
        except OSError:
            pass
        return len(raw)

    def _anew(self) -> None:
        """What sd_journal_stream_fd(3) does: a connection, and a header of seven lines."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
            journal.settimeout(PATIENCE)
            journal.connect(JOURNAL)
            journal.sendall(f"{self._identifier}\n\n{PRIORITY}\n0\n0\n0\n0\n".encode())
            journal.settimeout(None)
            os.dup2(journal.fileno(), self._fd)


def lines_may_be_lost(identifier: str) -> None:
    """From now on no line that this process prints makes it fail. `identifier` is what journalctl -t knows it by."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        text = io.TextIOWrapper(Stream(fd, identifier), errors="backslashreplace", write_through=True)  # type: ignore[type-var]
        setattr(sys, name, text)
