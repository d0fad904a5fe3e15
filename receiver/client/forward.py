"""Runs a command on the server over ssh, with the same words, exit code and terminal."""

from __future__ import annotations

import os
import sys

from receiver.errors import Rejected

TYPE_CHECKING = False  # instead of importing typing, which takes longer than this whole module
if TYPE_CHECKING:
    from typing import NoReturn

# Commands that ask the user at the terminal.
TALKS = frozenset({"run", "enter", "apps:destroy", "destroy"})


def forward(words: list[str], remote: str, app: str) -> NoReturn:
    """Become ssh with the command; its exit code is the command's, or 255 if the server was not reached (ssh(1))."""
    from receiver.client import ssh
    from receiver.client.remote import find
    from receiver.client.words import Asked, pack

    server = find(os.getcwd(), remote, app)
    terminal = os.isatty(0) and os.isatty(1)
    asked = Asked(tuple(words), server.app, columns(), os.isatty(1) and "NO_COLOR" not in os.environ)
    how = ["-t"] if terminal and words[0] in TALKS else ["-T"]
    sys.stdout.flush()
    argv = [*ssh.argv(), *how, *server.ssh, pack(asked)]
    try:
        os.execvp(argv[0], argv)
    except FileNotFoundError:
        raise Rejected(f"{argv[0]} is not installed here.", hint="Install an OpenSSH client") from None


def columns() -> int:
    """The width of the terminal that shows the answer; 0 if there is none."""
    try:
        return os.get_terminal_size(1).columns
    except OSError:
        return 0
