"""Which program listens on which port, from proc(5): a minimal system has no tool for that."""

from __future__ import annotations

import socket
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LISTEN = "0A"  # proc(5), /proc/net/tcp: the state TCP_LISTEN


@dataclass(frozen=True)
class Listener:
    """A program that listens on a port. `pid` 0: it cannot be seen from here, e.g. because it is outside this
    container."""

    pid: int
    name: str

    def __str__(self) -> str:
        return f"{self.name} (pid {self.pid})" if self.pid else "a program that cannot be seen from here"


def listener(port: int) -> Listener | None:
    """The program that listens on this TCP port on any address, or None."""
    inodes = set()
    for table in ("tcp", "tcp6"):
        with suppress(FileNotFoundError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == LISTEN and int(words[1].rpartition(":")[2], 16) == port:
                    inodes.add(words[9])
    if not inodes:
        return None if _can_bind(port) else Listener(0, "")
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            if any(str(fd.readlink()) in wanted for fd in (process / "fd").iterdir()):
                return Listener(int(process.name), (process / "comm").read_text().strip())
    return Listener(0, "")


def free_port(first: int) -> int:
    """The first port from `first` on that is free."""
    return next(port for port in range(first, first + 1000) if listener(port) is None)


def _can_bind(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", port))
        except OSError:
            return False
    return True
