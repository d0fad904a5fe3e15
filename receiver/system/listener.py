"""Serves each connection in a process of its own, forked from one that has imported what it needs."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

FIRST_FD = 3  # sd_listen_fds(3)
MOST = 256  # connections at once; further ones wait to be accepted
# Seconds without a connection after which a service of systemd's ends: a user who has pushed may soon roll back.
IDLE = 60.0


def fork_for_each(
    server: socket.socket,
    serve: Callable[[socket.socket], int],
    *,
    ahead: Iterator[None],
    pause: float = 0,
    idle: float | None = None,
) -> None:
    """Accept until nobody has been connected for `idle` seconds (None: for ever).

    `serve` runs in a child, which exits with the code that it returns (70 if it raises). While no connection comes for
    `pause` seconds, the next step of `ahead` runs here, so that later children find its work done.
    """
    ended, tell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    # Not SIG_IGN: programs that the children start would inherit it, and their waitpid(2) would fail.
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: set[int] = set()
    working = True
    while True:
        watched: list[int | socket.socket] = [ended, *([server] if len(children) < MOST else [])]
        patience = pause if working else None if children else idle
        ready = select.select(watched, [], [], patience)[0]
        if not ready and not working:
            return
        if not ready:
            working = next(ahead, "over") is None
        if ended in ready:
            os.read(ended, 4096)
            children -= set(_reaped())
        if server not in ready:
            continue
        connection, _ = server.accept()
        try:
            child = os.fork()
        except OSError as error:
            print(f"no process for a connection: {error.strerror}", file=sys.stderr, flush=True)
            child = -1
        if child == 0:
            _be(connection, server, serve)
        if child > 0:
            children.add(child)
        connection.close()


def _be(connection: socket.socket, server: socket.socket, serve: Callable[[socket.socket], int]) -> None:
    """In the child: serve; never return into the listener's code."""
    code = 70
    try:
        # A session of its own: stopping the listener must not stop what is under way.
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        server.close()
        code = serve(connection)
    finally:
        os._exit(code)


def _reaped() -> Iterator[int]:
    with suppress(ChildProcessError):
        while pid := os.waitpid(-1, os.WNOHANG)[0]:
            yield pid
