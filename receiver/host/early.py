"""Connections opened before anything slow is imported: the other end is started meanwhile.

systemd needs 40–100 ms to start a sandboxed unit and Python 60 more to import its modules; one process after the other,
the user would wait for the sum. So this imports nothing that the interpreter has not loaded already.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM, socket

# As in paths.Layout, which takes too long to import here.
AGENT = "/run/shipit/agent.sock"
WORKER = "/run/shipit/worker.sock"


# What the words of a request begin with when a release will be made, by git's name or a command's (cli/main.py).
RELEASES = (
    "git-receive-pack ", "git receive-pack ", "rollback ", "releases:rollback ", "config:set ", "config:unset ",
    "ps:scale ", "scale ", "deploy ", "ps:rebuild ",
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
