"""What the command of a process tells about itself: where it listens."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from receiver.model import Listen


@dataclass(frozen=True)
class Server:
    """A web server that shipit can tell where to listen. `address` is the one it was given in the command, or empty;
    `only_port`: as it is set up, it takes no unix socket. `patience`: seconds that it may take to answer first."""

    name: str
    address: str = ""
    only_port: bool = False
    patience: int = 60


# Returns the server that a command starts, if a runtime knows it; None for another program.
Knows = Callable[[str], Server | None]


def listen_mode(command: str, server: Server | None) -> Listen:
    """Where a web process takes its requests (docs/architecture.md, "Processes")."""
    if names_variable(command, "PORT"):
        return Listen.PORT
    if names_variable(command, "SOCKET"):
        return Listen.SOCKET
    return Listen.SOCKET if server and not server.address and not server.only_port else Listen.PORT


def names_variable(command: str, name: str) -> bool:
    """Whether a shell command uses `$NAME` or `${NAME…}`."""
    return re.search(rf"\$(?:{name}(?![A-Za-z0-9_])|\{{{name}(?![A-Za-z0-9_]))", command) is not None
