"""The standard error of a hook, written by the gateway: the pusher reads it after `remote: `."""

from __future__ import annotations

import os
import select
from types import TracebackType

from receiver.errors import Failure

# Milliseconds that a line may wait for a reader; for the log of a release it is longer (ledger/follow.py).
PATIENCE = 2000


class Sideband:
    """Writes lines to a descriptor without ever blocking: lines that nobody takes are lost."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def of(cls, pid: int) -> Sideband:
        """The standard error of a process of our own user; our own if that cannot be opened again (a socket)."""
        try:
            return cls(os.open(f"/proc/{pid}/fd/2", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return cls(os.dup(2))

    def tell(self, line: str) -> None:
        data = line.encode(errors="replace") + b"\n"
        writable = select.poll()
        writable.register(self.fd, select.POLLOUT)
        try:
            while data and writable.poll(PATIENCE):
                data = data[os.write(self.fd, data[: select.PIPE_BUF]) :]
        except OSError:
            # The pusher went away; that is no reason to stop.
            return

    def failure(self, failure: Failure) -> None:
        for line in failure.lines():
            self.tell(f" !     {line}")

    def __enter__(self) -> Sideband:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)
