"""What systemd does with Accept=yes, for the embedded manager: a process of its own for each connection."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from typing import NoReturn


def fork_for_each(server: socket.socket, serve: Callable[[socket.socket], int]) -> NoReturn:
    """Accept for ever; `serve` runs in a child, whose exit code is what it returns (70 when it raises)."""
    server.listen(64)
    signal.signal(signal.SIGCHLD, lambda *_: _reap())
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            # A session of its own: stopping the listener must not stop what is under way.
            os.setsid()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            code = 70
            try:
                code = serve(connection)
            finally:
                os._exit(code)
        connection.close()


def _reap() -> None:
    """Not SIG_IGN, which waitpid(2) in the children would inherit the effect of through execve(2)."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
