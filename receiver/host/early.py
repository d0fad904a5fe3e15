"""Connections opened before anything slow is imported: the other end is started meanwhile.

systemd needs 40–100 ms to start a sandboxed unit and Python 60 more to import its modules; one process after the other,
the user would wait for the sum. So this imports nothing that the interpreter has not loaded already.
"""

from __future__ import annotations

import sys
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_DONTWAIT,
    MSG_PEEK,
    SCM_RIGHTS,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)

# As in paths.Layout, which takes too long to import here.
AGENT = "/run/shipit/agent.sock"
WORKER = "/run/shipit/worker.sock"

# sd_listen_fds(3)
FIRST_FD = 3
# sizeof(int), which is what a descriptor is in a message (unix(7), SCM_RIGHTS).
FD = 4
# What the words of a request begin with when a release will be made, by git's name or a command's (cli/main.py).
RELEASES = (
    "git-receive-pack ", "git receive-pack ", "rollback ", "releases:rollback ", "config:set ", "config:unset ",
    "ps:scale ", "scale ", "ps:restart ", "restart ", "ps:start ", "start ", "deploy ", "ps:rebuild ",
)  # fmt: skip


def makes_release(command: str) -> bool:
    """Whether SSH_ORIGINAL_COMMAND will want a worker. A guess: a worker that is told nothing just ends."""
    return command.removeprefix("shipit ").startswith(RELEASES)


def call(path: str) -> int:
    """A descriptor connected to that socket, or -1: whoever needs it then connects again and reports why not."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        return -1
    return connection.detach()


def call_both() -> tuple[int, int]:
    """Descriptors (worker, agent), -1 for one that cannot be had. The worker is handed the agent's at once.

    So there is one agent, started beside the worker and not after it. Who keeps the agent's descriptor may use it
    until the worker is told what to do.
    """
    agent, worker = call(AGENT), call(WORKER)
    if agent >= 0 and worker >= 0:
        connection = socket(fileno=worker)
        try:  # noqa: SIM105 - contextlib is slow to import
            connection.sendmsg([b"\n"], [(SOL_SOCKET, SCM_RIGHTS, agent.to_bytes(FD, sys.byteorder))])
        except OSError:
            pass
        connection.detach()
    return worker, agent


def given(fd: int) -> int:
    """The agent's descriptor that came with the connection `fd`, or -1."""
    connection = socket(fileno=fd)
    rights: list[tuple[int, int, bytes]] = []
    try:
        # Who brings no descriptor may have sent the line already, of which nothing may be taken.
        if connection.recv(1, MSG_DONTWAIT | MSG_PEEK) == b"\n":
            _, rights, _, _ = connection.recvmsg(1, CMSG_SPACE(FD), MSG_DONTWAIT | MSG_CMSG_CLOEXEC)
    except OSError:
        pass
    connection.detach()
    return int.from_bytes(rights[0][2][:FD], sys.byteorder) if rights else -1
