"""The gateway service: it has imported everything, and serves each login (ask.py) in a fork of its own.

It runs as the user `shipit`, in the sandbox of shipit-gateway.service. Only that user may connect (the socket's mode),
who could start a gateway just as well. sshd's forced command says whose login it is.
"""

from __future__ import annotations

import array
import fcntl
import gc
import importlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress
from types import FrameType

from receiver.gate import gateway
from receiver.gate.ask import INTERRUPT, TAKEN
from receiver.paths import Layout, share
from receiver.system.journal import lines_may_be_lost
from receiver.system.listener import FIRST_FD, IDLE, fork_for_each

# Modules that requests need beside the gateway itself, the most frequent first.
PARTS = (
    "click", "receiver.cli.main", "receiver.cli.config", "receiver.gate.service", "receiver.gate.hook", "yaml",
    "receiver.cli.releases", "receiver.cli.ps", "receiver.cli.apps", "receiver.cli.status", "receiver.cli.logs",
)  # fmt: skip
HEADER = 4
LARGEST = 2**22  # bytes of a request: execve(2) allows an environment of that size
CHANNELS = (0, 1, 2)


def main() -> None:
    """Serve logins on the socket that systemd passed, until none has come for a while."""
    lines_may_be_lost("shipit")
    gc.freeze()
    gc.enable()
    with socket.socket(fileno=FIRST_FD) as server:
        fork_for_each(server, serve, ahead=imports(), idle=IDLE)


def imports() -> Iterator[None]:
    for name in PARTS:
        importlib.import_module(name)
        yield


def serve(connection: socket.socket) -> int:
    """In a forked process: be the gateway of one login; returns its exit code."""
    key, environ, fds = receive(connection)
    asker = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))[0]
    for fd, number in zip(fds, CHANNELS, strict=True):
        os.dup2(fd, number)
        os.close(fd)
    # The same as in an interpreter that is started in the locale C.UTF-8.
    sys.stdin = open(0, encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stdout = open(1, "w", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environb.update(environ)
    connection.sendall(TAKEN)
    try:
        heed(connection)
        code = gateway.serve(Layout(), key, share("hooks"), asker)
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    connection.sendall(bytes([code & 255]))
    return code


def receive(connection: socket.socket) -> tuple[list[str], dict[bytes, bytes], list[int]]:
    """The key's name and fingerprint, the environment from sshd, and three descriptors; raises ValueError otherwise."""
    found = array.array("i")
    data, ancillary, _, _ = connection.recvmsg(65536, socket.CMSG_SPACE(len(CHANNELS) * found.itemsize))
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(raw)
    parts, size = [data[HEADER:]], int.from_bytes(data[:HEADER], "big")
    missing = size - len(parts[0])
    while 0 < missing < LARGEST and (part := connection.recv(min(missing, 65536))):
        parts.append(part)
        missing -= len(part)
    if missing or len(found) != len(CHANNELS):
        raise ValueError("not what ask.py sends")
    key, *pairs = b"".join(parts).split(b"\0")
    return os.fsdecode(key).split(" "), dict(pair.partition(b"=")[::2] for pair in pairs), list(found)


def heed(connection: socket.socket) -> None:
    """From now on end as by SIGHUP when the asker is gone, and as by Ctrl-C when it sends that (fcntl(2), F_SETSIG)."""

    def told(number: int, frame: FrameType | None) -> None:
        try:
            word = connection.recv(16)
        except BlockingIOError:
            return
        except OSError:
            word = b""  # The asker ended before it had read our answer (ECONNRESET).
        if word.startswith(INTERRUPT):
            raise KeyboardInterrupt
        raise SystemExit(128 + signal.SIGHUP)

    signal.signal(signal.SIGUSR1, told)
    fcntl.fcntl(connection, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(connection, fcntl.F_SETSIG, signal.SIGUSR1)
    flags = fcntl.fcntl(connection, fcntl.F_GETFL)
    fcntl.fcntl(connection, fcntl.F_SETFL, flags | os.O_ASYNC | os.O_NONBLOCK)
    # The asker may be gone already.
    told(signal.SIGUSR1, None)
