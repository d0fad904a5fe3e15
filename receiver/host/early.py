"""The agent's connection, opened before anything slow is imported: systemd starts the agent meanwhile.

A sandboxed unit needs 40–100 ms to start and Python 60 more to import its modules; one process after the other, the
user would wait for the sum. So this imports nothing that the interpreter has not loaded already.
"""

from __future__ import annotations

from _socket import AF_UNIX, SOCK_STREAM, socket

# As in paths.Layout, which takes too long to import here.
AGENT = "/run/shipit/agent.sock"

# What the words of a request begin with when the agent will be asked, by git's name or a command's (cli/main.py).
ASKING = (
    "git-receive-pack ", "git receive-pack ", "rollback ", "releases:rollback ", "config", "ps ", "ps:", "scale ",
    "restart ", "start ", "stop ", "status ", "deploy ", "run ", "domains:", "apps:create ", "apps:destroy ", "destroy ",
)  # fmt: skip


def will_ask(command: str) -> bool:
    """Whether SSH_ORIGINAL_COMMAND will want the agent. A guess: an agent that is asked nothing just ends."""
    return command.removeprefix("shipit ").startswith(ASKING)


def call() -> int:
    """A descriptor connected to the agent, or -1: whoever needs it then connects again and reports why not."""
    connection = socket(AF_UNIX, SOCK_STREAM)
    try:
        connection.connect(AGENT)
    except OSError:
        connection.close()
        return -1
    return connection.detach()
