"""Standard output and error of services: lines for the journal, which never make the service fail.

systemd gives a service a stream to the journal. After a restart of journald the stream has no reader, and printing a
line would end the service (EPIPE).
"""

from __future__ import annotations

import io
import os
import socket
import sys
from contextlib import suppress

JOURNAL = "/run/systemd/journal/stdout"
PRIORITY = 6  # info, systemd's default for the output of a service
PATIENCE = 1.0  # seconds to wait for a journal that does not answer


class Stream(io.RawIOBase):
    """Writes to a descriptor; lines that nobody reads are lost. A broken stream to the journal is connected again,
    once."""

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
        """Connect again as sd_journal_stream_fd(3) does: a connection, and a header of seven lines."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as journal:
            journal.settimeout(PATIENCE)
            journal.connect(JOURNAL)
            journal.sendall(f"{self._identifier}\n\n{PRIORITY}\n0\n0\n0\n0\n".encode())
            journal.settimeout(None)
            os.dup2(journal.fileno(), self._fd)


def lines_may_be_lost(identifier: str) -> None:
    """From now on printing never makes this process fail. `identifier` is the name for journalctl -t."""
    for name, fd in (("stdout", 1), ("stderr", 2)):
        text = io.TextIOWrapper(Stream(fd, identifier), errors="backslashreplace", write_through=True)  # type: ignore[type-var]
        setattr(sys, name, text)
